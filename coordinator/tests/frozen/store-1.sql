-- A store as the first format has it.
PRAGMA journal_mode = WAL;
CREATE TABLE kv (key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL, modified INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE revision (one INTEGER PRIMARY KEY CHECK (one = 1), current INTEGER NOT NULL);
INSERT INTO revision VALUES (1, 9);
INSERT INTO kv VALUES ('/a/1', x'78', 7), ('/a/2', x'79', 9);
PRAGMA user_version = 1;
