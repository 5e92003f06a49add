/* See wire_client.h. */
#include "wire_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    REQUEST_LEADER = 0,
    REQUEST_OPEN = 3,
    REQUEST_PREPARE = 4,
    REQUEST_EXEC = 5,
    REQUEST_QUERY = 6,
    REQUEST_EXEC_SQL = 8,
    REQUEST_QUERY_SQL = 9,
    REQUEST_ADD = 12,
    REQUEST_ASSIGN = 13,
    REQUEST_REMOVE = 14,
    REQUEST_CLUSTER = 16,
    REQUEST_TRANSFER = 17,
    RESPONSE_FAILURE = 0,
    RESPONSE_SERVER = 1,
    RESPONSE_SERVERS = 3,
    RESPONSE_DB = 4,
    RESPONSE_STMT = 5,
    RESPONSE_RESULT = 6,
    RESPONSE_ROWS = 7,
    RESPONSE_EMPTY = 8
};

#define PROTOCOL_VERSION 1u
#define BODY_SIZE_MAX ((size_t)64 << 20)
#define COLUMNS_MAX 2000
#define PARAMETERS_MAX 255 /* their count fits into one byte */
#define HEADER_SIZE 8
/* Of the first receive buffer: one system call takes an answer of several messages. */
#define RECEIVE_SIZE ((size_t)64 << 10)
#define ROWS_DONE UINT64_C(0xFFFFFFFFFFFFFFFF)
#define ROWS_PART UINT64_C(0xEEEEEEEEEEEEEEEE)

static int broken(struct wire_client *client, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(client->error, sizeof client->error, format, arguments);
    va_end(arguments);
    return WIRE_BROKEN;
}

/* ---- the request, behind room for its header ---- */

static size_t padded(size_t size)
{
    return (size + 7) / 8 * 8;
}

static int reserve(struct wire_client *client, size_t size)
{
    unsigned char *request;
    if (size > BODY_SIZE_MAX)
        return broken(client, "a message of %zu bytes is too large", size);
    if (size <= client->request_capacity)
        return WIRE_OK;
    request = realloc(client->request, size * 2);
    if (request == NULL)
        return broken(client, "out of memory");
    client->request = request;
    client->request_capacity = size * 2;
    return WIRE_OK;
}

static void begin_request(struct wire_client *client)
{
    client->request_size = HEADER_SIZE;
}

static int put_word(struct wire_client *client, uint64_t word)
{
    size_t i;
    if (reserve(client, client->request_size + 8) != WIRE_OK)
        return WIRE_BROKEN;
    for (i = 0; i < 8; i++)
        client->request[client->request_size++] = (unsigned char)(word >> (8 * i));
    return WIRE_OK;
}

/* Padded with zeros to a whole word. */
static int put_bytes(struct wire_client *client, const char *bytes, size_t size)
{
    size_t room = padded(size);
    if (reserve(client, client->request_size + room) != WIRE_OK)
        return WIRE_BROKEN;
    memcpy(client->request + client->request_size, bytes, size);
    memset(client->request + client->request_size + size, 0, room - size);
    client->request_size += room;
    return WIRE_OK;
}

static int put_text(struct wire_client *client, const char *text)
{
    return put_bytes(client, text, strlen(text) + 1);
}

/* Reads the received body from front to back. */
struct reader {
    const unsigned char *next;
    size_t left;
    int failed;
};

static struct reader reader_of(const struct wire_client *client)
{
    struct reader reader;
    reader.next = client->body;
    reader.left = client->body_size;
    reader.failed = 0;
    return reader;
}

static const unsigned char *take(struct reader *reader, size_t size)
{
    const unsigned char *start = reader->next;
    if (reader->failed || size > reader->left) {
        reader->failed = 1;
        return NULL;
    }
    reader->next += size;
    reader->left -= size;
    return start;
}

static uint64_t take_word(struct reader *reader)
{
    const unsigned char *bytes = take(reader, 8);
    uint64_t word = 0;
    size_t i;
    if (bytes == NULL)
        return 0;
    for (i = 0; i < 8; i++)
        word |= (uint64_t)bytes[i] << (8 * i);
    return word;
}

static const char *take_text(struct reader *reader)
{
    const void *end = reader->failed ? NULL : memchr(reader->next, 0, reader->left);
    if (end == NULL) {
        reader->failed = 1;
        return "";
    }
    return (const char *)take(reader, padded((size_t)((const unsigned char *)end - reader->next) + 1));
}

/* ---- the connection ---- */

static int send_all(struct wire_client *client, const void *data, size_t size)
{
    const char *bytes = data;
    while (size > 0) {
        ssize_t sent = send(client->fd, bytes, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return broken(client, "send: %s", strerror(errno));
        bytes += sent;
        size -= (size_t)sent;
    }
    return WIRE_OK;
}

/* Room for a whole message behind what was taken. */
static int make_room(struct wire_client *client, size_t size)
{
    unsigned char *received;
    size_t left = client->received - client->taken;
    if (client->taken > 0) {
        memmove(client->answer, client->answer + client->taken, left);
        client->taken = 0;
        client->received = left;
    }
    if (size <= client->answer_capacity)
        return WIRE_OK;
    received = realloc(client->answer, size);
    if (received == NULL)
        return broken(client, "out of memory");
    client->answer = received;
    client->answer_capacity = size;
    return WIRE_OK;
}

/* Until that many bytes wait to be taken; more may come with them. */
static int receive_until(struct wire_client *client, size_t size)
{
    if (client->received == client->taken)
        client->received = client->taken = 0;
    if (client->taken + size > client->answer_capacity
        && make_room(client, size > RECEIVE_SIZE ? size : RECEIVE_SIZE) != WIRE_OK)
        return WIRE_BROKEN;
    while (client->received - client->taken < size) {
        ssize_t received =
            recv(client->fd, client->answer + client->received, client->answer_capacity - client->received, 0);
        if (received < 0 && errno == EINTR)
            continue;
        if (received == 0)
            return broken(client, "the node closed the connection");
        if (received < 0)
            return broken(client, "receive: %s", strerror(errno));
        client->received += (size_t)received;
    }
    return WIRE_OK;
}

static int send_request(struct wire_client *client, int type)
{
    uint32_t words = (uint32_t)((client->request_size - HEADER_SIZE) / 8);
    size_t i;
    memset(client->request, 0, HEADER_SIZE);
    for (i = 0; i < 4; i++)
        client->request[i] = (unsigned char)(words >> (8 * i));
    client->request[4] = (unsigned char)type;
    return send_all(client, client->request, client->request_size);
}

/* Receives one message, which must be of the type expected or a failure. */
static int receive_response(struct wire_client *client, int expected)
{
    unsigned char header[HEADER_SIZE];
    struct reader reader;
    size_t size;
    if (receive_until(client, HEADER_SIZE) != WIRE_OK)
        return WIRE_BROKEN;
    memcpy(header, client->answer + client->taken, HEADER_SIZE);
    size = ((size_t)header[0] | (size_t)header[1] << 8 | (size_t)header[2] << 16 | (size_t)header[3] << 24) * 8;
    if (size > BODY_SIZE_MAX)
        return broken(client, "a message of %zu bytes is too large", size);
    if (receive_until(client, HEADER_SIZE + size) != WIRE_OK)
        return WIRE_BROKEN;
    client->body = client->answer + client->taken + HEADER_SIZE;
    client->body_size = size;
    client->taken += HEADER_SIZE + size;
    if (header[4] == expected)
        return WIRE_OK;
    if (header[4] != RESPONSE_FAILURE)
        return broken(client, "answer of type %d instead of %d", header[4], expected);
    /* A statement that fails after its first row may put column names and rows before code and text; then this
     * shows the number of columns as the code. Clients have always read it so. */
    reader = reader_of(client);
    client->code = take_word(&reader);
    snprintf(client->error, sizeof client->error, "%s", take_text(&reader));
    return reader.failed ? broken(client, "a failure that cannot be read") : WIRE_REFUSED;
}

/* An address of the kernel, of which *size bytes count; 0 if the text is none. */
static int parse_address(const char *text, struct sockaddr_storage *address, socklen_t *size)
{
    struct sockaddr_in *inet = (struct sockaddr_in *)address;
    struct sockaddr_un *local = (struct sockaddr_un *)address;
    const char *colon = strrchr(text, ':');
    size_t length = strlen(text);
    char host[64];
    memset(address, 0, sizeof *address);
    if (text[0] == '@') {
        if (length > sizeof local->sun_path)
            return 0;
        local->sun_family = AF_UNIX;
        /* An abstract name begins with a NUL where the text has its "@", and none ends it. */
        memcpy(local->sun_path + 1, text + 1, length - 1);
        *size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
        return 1;
    }
    if (colon == NULL || (size_t)(colon - text) >= sizeof host)
        return 0;
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    inet->sin_family = AF_INET;
    inet->sin_port = htons((uint16_t)atoi(colon + 1));
    *size = sizeof *inet;
    return inet_pton(AF_INET, host, &inet->sin_addr) == 1;
}

int wire_connect(struct wire_client *client, const char *address, int timeout_ms)
{
    struct sockaddr_storage to;
    socklen_t to_size = 0;
    struct timeval timeout;
    int one = 1;
    unsigned char version[8] = {PROTOCOL_VERSION, 0, 0, 0, 0, 0, 0, 0};

    memset(client, 0, sizeof *client);
    client->fd = -1;
    if (!parse_address(address, &to, &to_size))
        return broken(client, "not an address: %s", address);
    client->fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0)
        return broken(client, "socket: %s", strerror(errno));
    timeout.tv_sec = timeout_ms / 1000;
    timeout.tv_usec = timeout_ms % 1000 * 1000;
    setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(client->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (to.ss_family == AF_INET)
        setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(client->fd, (struct sockaddr *)&to, to_size) != 0)
        broken(client, "connect to %s: %s", address, strerror(errno));
    else if (send_all(client, version, sizeof version) == WIRE_OK)
        return WIRE_OK;
    close(client->fd);
    client->fd = -1;
    return WIRE_BROKEN;
}

void wire_close(struct wire_client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    free(client->request);
    free(client->answer);
    memset(client, 0, sizeof *client);
    client->fd = -1;
}

/* ---- requests ---- */

int wire_leader(struct wire_client *client, uint64_t *id)
{
    struct reader reader;
    int result;
    begin_request(client);
    if (put_word(client, 0) != WIRE_OK || send_request(client, REQUEST_LEADER) != WIRE_OK)
        return WIRE_BROKEN;
    result = receive_response(client, RESPONSE_SERVER);
    if (result != WIRE_OK)
        return result;
    reader = reader_of(client);
    *id = take_word(&reader);
    return reader.failed ? broken(client, "an answer that cannot be read") : WIRE_OK;
}

int wire_wait_for_leader(struct wire_client *client, int timeout_ms)
{
    const struct timespec pause = {0, 10 * 1000 * 1000};
    int waited_ms;
    for (waited_ms = 0; waited_ms < timeout_ms; waited_ms += 10) {
        uint64_t id = 0;
        int result = wire_leader(client, &id);
        if (result != WIRE_OK || id != 0)
            return result;
        nanosleep(&pause, NULL);
    }
    return broken(client, "no leader");
}

int wire_open(struct wire_client *client, const char *database)
{
    begin_request(client);
    if (put_text(client, database) != WIRE_OK || put_word(client, 0) != WIRE_OK || put_text(client, "") != WIRE_OK
        || send_request(client, REQUEST_OPEN) != WIRE_OK)
        return WIRE_BROKEN;
    return receive_response(client, RESPONSE_DB);
}

static int send_sql(struct wire_client *client, int type, const char *sql)
{
    begin_request(client);
    if (put_word(client, 0) != WIRE_OK || put_text(client, sql) != WIRE_OK)
        return WIRE_BROKEN;
    return send_request(client, type);
}

int wire_prepare(struct wire_client *client, const char *sql, uint32_t *statement)
{
    struct reader reader;
    int result;
    if (send_sql(client, REQUEST_PREPARE, sql) != WIRE_OK)
        return WIRE_BROKEN;
    result = receive_response(client, RESPONSE_STMT);
    if (result != WIRE_OK)
        return result;
    reader = reader_of(client);
    /* The number of the database in the lower half is that of the connection's only one. */
    *statement = (uint32_t)(take_word(&reader) >> 32);
    return reader.failed ? broken(client, "an answer that cannot be read") : WIRE_OK;
}

static int put_value(struct wire_client *client, const struct wire_value *value)
{
    uint64_t word = 0;
    switch (value->kind) {
    case WIRE_INTEGER:
        return put_word(client, (uint64_t)value->integer);
    case WIRE_FLOAT:
        memcpy(&word, &value->number, sizeof word);
        return put_word(client, word);
    case WIRE_TEXT:
        return put_text(client, value->bytes);
    case WIRE_BLOB:
        if (put_word(client, value->size) != WIRE_OK)
            return WIRE_BROKEN;
        return put_bytes(client, value->bytes, value->size);
    default:
        return put_word(client, 0);
    }
}

/* Count and kinds, a byte each, in whole words; then the values. */
static int send_values(struct wire_client *client, int type, uint32_t statement, size_t count,
                       const struct wire_value *values)
{
    char kinds[PARAMETERS_MAX + 1];
    size_t i;
    if (count > PARAMETERS_MAX)
        return broken(client, "%zu parameters", count);
    kinds[0] = (char)count;
    for (i = 0; i < count; i++)
        kinds[i + 1] = (char)values[i].kind;
    begin_request(client);
    if (put_word(client, (uint64_t)statement << 32) != WIRE_OK || put_bytes(client, kinds, count + 1) != WIRE_OK)
        return WIRE_BROKEN;
    for (i = 0; i < count; i++)
        if (put_value(client, &values[i]) != WIRE_OK)
            return WIRE_BROKEN;
    return send_request(client, type);
}

static int send_prepared(struct wire_client *client, int type, uint32_t statement, size_t count, const int64_t *values)
{
    struct wire_value parameters[PARAMETERS_MAX];
    size_t i;
    for (i = 0; i < count && i < PARAMETERS_MAX; i++) {
        parameters[i].kind = WIRE_INTEGER;
        parameters[i].integer = values[i];
    }
    return send_values(client, type, statement, count, parameters);
}

int wire_receive_result(struct wire_client *client)
{
    struct reader reader;
    int result = receive_response(client, RESPONSE_RESULT);
    if (result != WIRE_OK)
        return result;
    reader = reader_of(client);
    client->last_id = take_word(&reader);
    client->row_count = take_word(&reader);
    return reader.failed ? broken(client, "an answer that cannot be read") : WIRE_OK;
}

int wire_send_exec(struct wire_client *client, const char *sql)
{
    return send_sql(client, REQUEST_EXEC_SQL, sql);
}

int wire_exec(struct wire_client *client, const char *sql)
{
    int result = wire_send_exec(client, sql);
    return result == WIRE_OK ? wire_receive_result(client) : result;
}

int wire_exec_prepared(struct wire_client *client, uint32_t statement, size_t count, const int64_t *values)
{
    int result = send_prepared(client, REQUEST_EXEC, statement, count, values);
    return result == WIRE_OK ? wire_receive_result(client) : result;
}

int wire_exec_values(struct wire_client *client, uint32_t statement, size_t count, const struct wire_value *values)
{
    int result = send_values(client, REQUEST_EXEC, statement, count, values);
    return result == WIRE_OK ? wire_receive_result(client) : result;
}

/* Codes above 5 are forms of the first five that a column's declared type asks for. */
static struct wire_value take_value(struct reader *reader, int code)
{
    struct wire_value value;
    uint64_t word;
    memset(&value, 0, sizeof value);
    switch (code) {
    case 1:  /* integer */
    case 9:  /* seconds since 1970 */
    case 11: /* boolean */
        value.kind = WIRE_INTEGER;
        value.integer = (int64_t)take_word(reader);
        break;
    case 2:
        value.kind = WIRE_FLOAT;
        word = take_word(reader);
        memcpy(&value.number, &word, sizeof value.number);
        break;
    case 3:
    case 10: /* date as text */
        value.kind = WIRE_TEXT;
        value.bytes = take_text(reader);
        value.size = strlen(value.bytes);
        break;
    case 4:
        value.kind = WIRE_BLOB;
        word = take_word(reader);
        if (word > reader->left) {
            reader->failed = 1;
            break;
        }
        value.size = (size_t)word;
        value.bytes = (const char *)take(reader, padded(value.size));
        break;
    case 5:
        value.kind = WIRE_NULL;
        take_word(reader);
        break;
    default:
        reader->failed = 1;
    }
    return value;
}

/* Reads one message of rows; stores its end marker. */
static int take_rows(struct wire_client *client, wire_row_function row, void *arg, uint64_t *marker)
{
    static const size_t codes_per_word = 16;
    struct reader reader = reader_of(client), peek;
    uint64_t count = take_word(&reader);
    const char **columns;
    struct wire_value *values;
    size_t i;
    if (count > COLUMNS_MAX)
        return broken(client, "%llu columns", (unsigned long long)count);
    columns = calloc((size_t)count + 1, sizeof *columns);
    values = calloc((size_t)count + 1, sizeof *values);
    for (i = 0; columns != NULL && i < count; i++)
        columns[i] = take_text(&reader);
    while (columns != NULL && values != NULL && !reader.failed) {
        const unsigned char *codes;
        peek = reader;
        *marker = take_word(&peek);
        if (*marker == ROWS_DONE || *marker == ROWS_PART)
            break;
        codes = take(&reader, ((size_t)count + codes_per_word - 1) / codes_per_word * 8);
        for (i = 0; !reader.failed && i < count; i++)
            values[i] = take_value(&reader, i % 2 == 0 ? codes[i / 2] & 15 : codes[i / 2] >> 4);
        if (reader.failed || count == 0)
            break;
        client->row_count++;
        if (row != NULL)
            row(arg, (size_t)count, columns, values);
    }
    free(columns);
    free(values);
    if (reader.failed || (*marker != ROWS_DONE && *marker != ROWS_PART))
        return broken(client, "rows that cannot be read");
    return WIRE_OK;
}

int wire_receive_rows(struct wire_client *client, wire_row_function row, void *arg, int *done)
{
    uint64_t marker = 0;
    int result = receive_response(client, RESPONSE_ROWS);
    if (result == WIRE_OK)
        result = take_rows(client, row, arg, &marker);
    *done = marker != ROWS_PART;
    return result;
}

static int receive_all_rows(struct wire_client *client, wire_row_function row, void *arg)
{
    int result = WIRE_OK, done = 0;
    client->row_count = 0;
    while (result == WIRE_OK && !done)
        result = wire_receive_rows(client, row, arg, &done);
    return result;
}

int wire_send_query(struct wire_client *client, const char *sql)
{
    client->row_count = 0;
    return send_sql(client, REQUEST_QUERY_SQL, sql);
}

int wire_query(struct wire_client *client, const char *sql, wire_row_function row, void *arg)
{
    int result = wire_send_query(client, sql);
    return result == WIRE_OK ? receive_all_rows(client, row, arg) : result;
}

int wire_query_prepared(struct wire_client *client, uint32_t statement, size_t count, const int64_t *values,
                        wire_row_function row, void *arg)
{
    int result = send_prepared(client, REQUEST_QUERY, statement, count, values);
    return result == WIRE_OK ? receive_all_rows(client, row, arg) : result;
}

int wire_query_values(struct wire_client *client, uint32_t statement, size_t count, const struct wire_value *values,
                      wire_row_function row, void *arg)
{
    int result = send_values(client, REQUEST_QUERY, statement, count, values);
    return result == WIRE_OK ? receive_all_rows(client, row, arg) : result;
}

static int call_empty(struct wire_client *client, int type)
{
    return send_request(client, type) == WIRE_OK ? receive_response(client, RESPONSE_EMPTY) : WIRE_BROKEN;
}

int wire_add(struct wire_client *client, uint64_t id, const char *address)
{
    begin_request(client);
    if (put_word(client, id) != WIRE_OK || put_text(client, address) != WIRE_OK)
        return WIRE_BROKEN;
    return call_empty(client, REQUEST_ADD);
}

static int call_with_id(struct wire_client *client, int type, uint64_t id)
{
    begin_request(client);
    return put_word(client, id) == WIRE_OK ? call_empty(client, type) : WIRE_BROKEN;
}

int wire_assign(struct wire_client *client, uint64_t id, int role)
{
    begin_request(client);
    if (put_word(client, id) != WIRE_OK || put_word(client, (uint64_t)role) != WIRE_OK)
        return WIRE_BROKEN;
    return call_empty(client, REQUEST_ASSIGN);
}

int wire_remove(struct wire_client *client, uint64_t id)
{
    return call_with_id(client, REQUEST_REMOVE, id);
}

int wire_transfer(struct wire_client *client, uint64_t id)
{
    return call_with_id(client, REQUEST_TRANSFER, id);
}

int wire_role(struct wire_client *client, uint64_t id, int *role)
{
    static const uint64_t with_roles = 1;
    struct reader reader;
    uint64_t count;
    int result;
    begin_request(client);
    if (put_word(client, with_roles) != WIRE_OK || send_request(client, REQUEST_CLUSTER) != WIRE_OK)
        return WIRE_BROKEN;
    result = receive_response(client, RESPONSE_SERVERS);
    if (result != WIRE_OK)
        return result;
    *role = -1;
    reader = reader_of(client);
    for (count = take_word(&reader); count > 0 && !reader.failed; count--) {
        uint64_t server = take_word(&reader);
        take_text(&reader);
        if (server == id)
            *role = (int)take_word(&reader);
        else
            take_word(&reader);
    }
    return reader.failed ? broken(client, "an answer that cannot be read") : WIRE_OK;
}
