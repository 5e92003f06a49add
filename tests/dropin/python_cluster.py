"""The PyPI packages dqlite-client and sqlalchemy-dqlite, clients written by others, with three nodes: the administration
and the pool of the first, a session of the ORM, and threads that share a pool while the leader is killed and moved.

python_cluster.py DIRECTORY LIBRARY: nodes with our library ("ours") or the C library ("C")."""

import asyncio
import datetime
import decimal
import sys
import threading
import time

import dqlitedbapi
import sqlalchemy as sa
from dqliteclient import ClusterClient, ConnectionPool, OperationalError, connect
from dqlitewire import NodeRole
from sqlalchemy import orm

from cluster import BUSY, Cluster, Member, Work, content, wait_for

THREADS = 4
# Rows that each thread has to write after each loss of a leader.
PROGRESS_ROWS = 10


def expect(what, is_, should):
    assert is_ == should, f"{what}: {is_!r}, expected {should!r}"


def addresses(cluster):
    return [member.address for member in cluster.members]


def other_than(cluster, leader):
    return next(member for member in cluster.members if member is not leader)


# dqlite-client


def administration(cluster):
    asyncio.run(administer(cluster))


async def administer(cluster):
    """Everything that the client can ask of a cluster, on one that has nothing else to do."""
    client = ClusterClient.from_addresses(addresses(cluster))
    leader = cluster.leader()
    expect("find_leader", await client.find_leader(), leader.address)
    info = await client.leader_info()
    expect("leader_info", (info.node_id, info.address), (leader.id, leader.address))
    voters = {(member.id, member.address, NodeRole.VOTER) for member in cluster.members}
    expect("cluster_info", await members(client), voters)
    other = other_than(cluster, leader)
    await client.set_weight(7, address=other.address)
    described = await client.describe(address=other.address)
    expect("describe", (described.failure_domain, described.weight), (0, 7))
    await dump(cluster, client)

    await client.transfer_leadership(other.id)
    expect("find_leader after the transfer", await client.find_leader(), other.address)
    fourth = Member(len(cluster.members) + 1, cluster.directory, cluster.settings, cluster.network)
    fourth.start(leader.library)
    try:
        await client.add_node(fourth.id, fourth.address)
        expect("the new node", await members(client), voters | {(fourth.id, fourth.address, NodeRole.SPARE)})
        for role in [NodeRole.STANDBY, NodeRole.VOTER, NodeRole.STANDBY]:
            await client.assign_role(fourth.id, role)
            expect(f"cluster_info with {role}", await members(client), voters | {(fourth.id, fourth.address, role)})
        await client.remove_node(fourth.id)
        expect("cluster_info after the removal", await members(client), voters)
    finally:
        fourth.kill()


async def members(client):
    return {(node.node_id, node.address, node.role) for node in await client.cluster_info()}


async def dump(cluster, client):
    connection = await connect(cluster.leader().address, database="dumped")
    await connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
    expect("execute", await connection.execute("INSERT INTO t (b) VALUES (?), (?)", ["x", None]), (2, 2))
    await connection.close()
    check, _, statements = content(await client.dump("dumped"))
    expect("integrity of the dump", check, [("ok",)])
    assert "INSERT INTO \"t\" VALUES(2,NULL);" in statements, statements


def pool(cluster):
    asyncio.run(share_pool(cluster))


async def share_pool(cluster):
    """Tasks that share fewer connections than there are of them, and what a connection gives and refuses."""
    async with ConnectionPool(addresses(cluster), database="pool", max_size=3) as shared:
        await shared.execute("CREATE TABLE t (task INTEGER, number INTEGER, PRIMARY KEY (task, number))")

        async def insert(task):
            number = 0
            while number < 5:
                try:
                    await shared.execute("INSERT INTO t VALUES (?, ?)", [task, number])
                    number += 1
                except OperationalError as error:
                    # Of two writers C refuses one at once.
                    if error.code & 0xFF != BUSY:
                        raise
                    await asyncio.sleep(0.01)

        await asyncio.gather(*map(insert, range(8)))
        expect("fetchval", await shared.fetchval("SELECT count(*) FROM t"), 40)
        row = {"task": 7, "number": 4}
        expect("fetchone", await shared.fetchone("SELECT * FROM t ORDER BY task DESC, number DESC LIMIT 1"), row)
        async with shared.acquire() as connection:
            try:
                async with connection.transaction():
                    await connection.execute("DELETE FROM t")
                    await connection.execute("INSERT INTO t VALUES (1, 1), (1, 1)")
                raise AssertionError("a duplicate key was accepted")
            except OperationalError as error:
                expect("the code of a duplicate key", error.code & 0xFF, 19)
                assert "UNIQUE constraint failed: t.task, t.number" in str(error), error
            expect("rows after the rollback", await connection.fetchval("SELECT count(*) FROM t"), 40)
            try:
                await connection.fetch("SELECT * FROM nosuch")
                raise AssertionError("a table that is not there was read")
            except OperationalError as error:
                assert "no such table: nosuch" in str(error), error
        many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n"
        expect("an answer of many messages", await shared.fetchall(many), [[i] for i in range(1, 5001)])


# sqlalchemy-dqlite


class Base(orm.DeclarativeBase):
    pass


tagging = sa.Table(
    "tagging", Base.metadata,
    sa.Column("book_id", sa.ForeignKey("book.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("tag.id"), primary_key=True),
)


class Author(Base):
    __tablename__ = "author"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(80), unique=True)
    books: orm.Mapped[list["Book"]] = orm.relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "book"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("author.id"))
    title: orm.Mapped[str] = orm.mapped_column(sa.Unicode, index=True)
    subtitle: orm.Mapped[str | None]
    copies: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, default=0)
    weight: orm.Mapped[float | None]
    price: orm.Mapped[decimal.Decimal | None] = orm.mapped_column(sa.Numeric(10, 2))
    lent: orm.Mapped[bool] = orm.mapped_column(default=False)
    printed: orm.Mapped[datetime.datetime | None]
    bought: orm.Mapped[datetime.date | None]
    cover: orm.Mapped[bytes | None]
    notes: orm.Mapped[dict | None] = orm.mapped_column(sa.JSON)
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")
    tags: orm.Mapped[list["Tag"]] = orm.relationship(secondary=tagging, back_populates="books")


class Tag(Base):
    __tablename__ = "tag"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(unique=True)
    books: orm.Mapped[list[Book]] = orm.relationship(secondary=tagging, back_populates="tags")


FULL = dict(
    title="Ärger mit 漢字 und 🐟", subtitle="", copies=2**63 - 1, weight=-0.1, price=decimal.Decimal("1234.50"), lent=True,
    printed=datetime.datetime(1969, 7, 20, 20, 17, 40, 123456), bought=datetime.date(2000, 2, 29),
    cover=bytes(range(256)) * 400, notes={"a": [1, None, "ä"]},
)
EMPTY = dict(
    title="leer", subtitle=None, copies=-(2**63), weight=None, price=None, lent=False, printed=None, bought=None,
    cover=None, notes=None,
)


def session(cluster):
    """Models with relations; every type; what is rolled back, refused, changed and deleted."""
    engine = sa.create_engine(f"dqlite://{cluster.leader().address}/library")
    Base.metadata.create_all(engine)
    # Reads what is there and creates nothing.
    Base.metadata.create_all(engine)
    write(engine)
    refuse(engine)
    change(engine)
    reflect(engine)
    Base.metadata.drop_all(engine)
    expect("tables at the end", sa.inspect(engine).get_table_names(), [])
    engine.dispose()


def write(engine):
    with orm.Session(engine) as s:
        fish, cook = Tag(name="fish"), Tag(name="cooking")
        author = Author(name="Łukasz O'Brien", books=[Book(**FULL, tags=[fish, cook]), Book(**EMPTY, tags=[cook])])
        s.add(author)
        s.commit()
        assert author.id and all(book.id for book in author.books), "no keys"
    with orm.Session(engine) as s:
        author = s.scalars(sa.select(Author).options(orm.selectinload(Author.books))).one()
        for book, values in zip(sorted(author.books, key=lambda b: -b.copies), [FULL, EMPTY]):
            for name, value in values.items():
                read = getattr(book, name)
                expect(f"{name} of {book.title}", (type(read), read), (type(value), value))
        tags = s.execute(sa.select(Tag.name, sa.func.count()).join(Tag.books).group_by(Tag.name).order_by(Tag.name))
        expect("tags", [tuple(row) for row in tags], [("cooking", 2), ("fish", 1)])


def refuse(engine):
    """What fails leaves nothing behind, and a session that goes on."""
    def counts(s):
        return [s.scalar(sa.select(sa.func.count()).select_from(model)) for model in (Author, Book)]

    with orm.Session(engine) as s:
        s.add(Author(name="rolled back", books=[Book(title="too")]))
        s.flush()
        expect("rows inside the transaction", counts(s), [2, 3])
        s.rollback()
        expect("rows after the rollback", counts(s), [1, 2])

        s.add_all([Author(name="new"), Author(name="Łukasz O'Brien")])
        try:
            s.commit()
            raise AssertionError("a duplicate name was accepted")
        except sa.exc.IntegrityError as error:
            assert "UNIQUE constraint failed: author.name" in str(error), error
            s.rollback()
        expect("rows after the refusal", counts(s), [1, 2])
        try:
            s.execute(sa.insert(Book).values(title=None, author_id=1))
            raise AssertionError("NULL was accepted")
        except sa.exc.IntegrityError as error:
            assert "NOT NULL constraint failed: book.title" in str(error), error
            s.rollback()

        s.add(Author(name="outer"))
        s.flush()
        with s.begin_nested() as savepoint:
            s.add(Author(name="inner"))
            s.flush()
            savepoint.rollback()
        s.commit()
        names = s.scalars(sa.select(Author.name).order_by(Author.id)).all()
        expect("what a savepoint leaves", names, ["Łukasz O'Brien", "outer"])


def change(engine):
    with orm.Session(engine) as s, s.begin():
        s.scalars(sa.select(Book).where(Book.lent.is_(False))).one().title = "voll"
        changed = s.execute(sa.update(Book).where(Book.title == "voll").values(copies=Book.copies + 1))
        expect("rows changed", changed.rowcount, 1)
        values = [{"title": f"Band {i}", "author_id": 2} for i in range(700)]
        ids = s.scalars(sa.insert(Book).returning(Book.id), values).all()
        expect("keys of many rows", len(set(ids)), 700)
    with orm.Session(engine) as s, s.begin():
        rows = s.scalars(sa.select(Book.title).where(Book.author_id == 2).order_by(Book.id)).all()
        expect("many rows", rows, [f"Band {i}" for i in range(700)])
        expect("a big number", s.scalar(sa.select(Book.copies).where(Book.title == "voll")), -(2**63) + 1)
        s.delete(s.get(Author, 1))
    with orm.Session(engine) as s:
        expect("what the deletion took along", s.scalar(sa.select(sa.func.count()).select_from(tagging)), 0)


def reflect(engine):
    inspector = sa.inspect(engine)
    expect("tables", sorted(inspector.get_table_names()), ["author", "book", "tag", "tagging"])
    columns = [column["name"] for column in inspector.get_columns("book")]
    expect("columns", columns, ["id", "author_id", *FULL])
    keys = [(key["constrained_columns"], key["referred_table"]) for key in inspector.get_foreign_keys("book")]
    expect("foreign keys", keys, [(["author_id"], "author")])
    expect("indexes", [index["name"] for index in inspector.get_indexes("book")], ["ix_book_title"])


# A pool of connections and leaders that come and go


class Shop(orm.DeclarativeBase):
    pass


class Order(Shop):
    __tablename__ = "orders"
    thread: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    number: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    lines: orm.Mapped[list["Line"]] = orm.relationship()


class Line(Shop):
    __tablename__ = "line"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    thread: orm.Mapped[int]
    number: orm.Mapped[int]
    value: orm.Mapped[str]
    __table_args__ = (sa.ForeignKeyConstraint(["thread", "number"], ["orders.thread", "orders.number"]),)


def engine_of(cluster):
    """One pool for all threads; a connection begins with any node that is there, and goes to the leader it names."""
    def open_connection():
        error = None
        for address in addresses(cluster):
            connection = dqlitedbapi.connect(address, database="test.db", timeout=2.0, check_same_thread=False)
            try:
                connection.connect()
                return connection
            except dqlitedbapi.Error as failure:
                connection.close()
                error = failure
        raise error

    return sa.create_engine("dqlite://", creator=open_connection, poolclass=sa.QueuePool, pool_size=2, max_overflow=1)


class Writers:
    """Threads that write orders of two lines each, with one pool that has fewer connections than there are threads."""

    def __init__(self, engine):
        self.engine = engine
        self.stopping = threading.Event()
        self.acknowledged = [set() for _ in range(THREADS)]
        self.failures = {}
        self.lock = threading.Lock()
        self.work = [Work(lambda i=i: self.write(i)) for i in range(THREADS)]

    def write(self, thread):
        number = 0
        while not self.stopping.is_set():
            number += 1
            try:
                with orm.Session(self.engine) as s:
                    lines = [Line(value=f"{number}.{i}") for i in range(2)]
                    s.add(Order(thread=thread, number=number, lines=lines))
                    s.commit()
                self.acknowledged[thread].add(number)
                # The client's pauses after BUSY grow: those that never pause would leave no turn to the others.
                time.sleep(0.02)
            except sa.exc.DBAPIError as error:
                with self.lock:
                    name = f"{type(error.orig).__name__} {error.orig.code}"
                    self.failures[name] = self.failures.get(name, 0) + 1
                time.sleep(0.05)

    def progress(self):
        before = list(map(len, self.acknowledged))

        def more():
            for work in self.work:
                if work.error is not None:
                    raise work.error
            return all(len(a) >= b + PROGRESS_ROWS for a, b in zip(self.acknowledged, before))

        wait_for(lambda: f"every thread to go on; failures: {self.failures}", more)

    def finish(self):
        self.stopping.set()
        for work in self.work:
            work.finish()


def failover(cluster):
    engine = engine_of(cluster)
    Shop.metadata.create_all(engine)
    writers = Writers(engine)
    writers.progress()
    for _ in range(2):
        lost = cluster.leader()
        lost.kill()
        writers.progress()
        lost.start(lost.library)
        cluster.lead(other_than(cluster, cluster.leader()))
        writers.progress()
    writers.finish()
    with orm.Session(engine) as s:
        orders = s.scalars(sa.select(Order).options(orm.selectinload(Order.lines))).all()
        found = {(order.thread, order.number): sorted(line.value for line in order.lines) for order in orders}
        expect("integrity", s.scalar(sa.text("PRAGMA integrity_check")), "ok")
    acknowledged = {(thread, number) for thread, numbers in enumerate(writers.acknowledged) for number in numbers}
    expect("acknowledged orders that are lost", sorted(acknowledged - found.keys()), [])
    for (thread, number), values in found.items():
        expect(f"the lines of order {number} of thread {thread}", values, [f"{number}.0", f"{number}.1"])
    engine.dispose()
    cluster.converge()
    print(f"python_cluster: {len(acknowledged)} orders acknowledged, all there; failures: {writers.failures}", flush=True)


def main(directory, library):
    with Cluster(directory) as cluster:
        cluster.form([library] * 3)
        for scenario in [administration, pool, session, failover]:
            begin = time.monotonic()
            scenario(cluster)
            print(f"python_cluster: {scenario.__name__}: ok, {time.monotonic() - begin:.1f} s", flush=True)
        for member in cluster.members:
            member.stop()


main(*sys.argv[1:])
