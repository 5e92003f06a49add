"""A session of the DB-API client: tables, rows of every type, transactions, errors, many rows."""

import sys

import dqlitedbapi

ROWS_MANY = 600


def expect(what, is_, should):
    if is_ != should:
        sys.exit(f"{what}: {is_!r}, expected {should!r}")


def main(address):
    connection = dqlitedbapi.connect(address, database="python")
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, i INTEGER, f REAL, s TEXT, b BLOB, n)")
    connection.commit()

    row = (1, -(2**63), 2.5, "text with ä and 漢", b"\x00\xff\x00", None)
    cursor.execute("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", row)
    expect("rowcount", cursor.rowcount, 1)
    expect("lastrowid", cursor.lastrowid, 1)
    connection.commit()
    cursor.execute("SELECT * FROM t WHERE id = ?", (1,))
    expect("column names", [column[0] for column in cursor.description], ["id", "i", "f", "s", "b", "n"])
    expect("the row", tuple(cursor.fetchone()), row)
    expect("no further row", cursor.fetchone(), None)

    cursor.execute("BEGIN")
    cursor.execute("INSERT INTO t (s) VALUES ('rolled back')")
    connection.rollback()
    cursor.execute("SELECT count(*) FROM t")
    expect("rows after rollback", tuple(cursor.fetchone()), (1,))

    cursor.execute("BEGIN")
    cursor.execute("INSERT INTO t (s) VALUES ('also rolled back')")
    cursor.execute("SELECT count(*) FROM t")
    expect("rows inside the transaction", tuple(cursor.fetchone()), (2,))
    cursor.execute("ROLLBACK")
    cursor.execute("BEGIN")
    cursor.execute("INSERT INTO t (s) VALUES ('kept')")
    cursor.execute("COMMIT")

    try:
        cursor.execute("INSERT INTO t (id) VALUES (1)")
        sys.exit("a duplicate key was accepted")
    except dqlitedbapi.IntegrityError as error:
        if "UNIQUE constraint failed: t.id" not in str(error):
            sys.exit(f"text of the constraint error: {error}")
    try:
        cursor.execute("SELECT * FROM nosuch")
        sys.exit("a table that is not there was read")
    except dqlitedbapi.OperationalError as error:
        if "no such table: nosuch" not in str(error):
            sys.exit(f"text of the error: {error}")

    cursor.executemany("INSERT INTO t (i) VALUES (?)", [(i,) for i in range(ROWS_MANY)])
    connection.commit()
    connection.close()

    second = dqlitedbapi.connect(address, database="python")
    cursor = second.cursor()
    cursor.execute("SELECT i FROM t WHERE i >= 0 ORDER BY i")
    expect("many rows", [value for (value,) in cursor.fetchall()], list(range(ROWS_MANY)))
    cursor.execute("SELECT s FROM t WHERE s IS NOT NULL ORDER BY id")
    expect("texts", [value for (value,) in cursor.fetchall()], [row[3], "kept"])
    second.close()


main(sys.argv[1])
