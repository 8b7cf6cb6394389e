//! What does the database say? Keys in a SQLite file: how they are read, and how `portcullis keys` changes them.
//!
//! Its journal is SQLite's first one (`DELETE`), not the write-ahead log: whoever reads that one must be able to write
//! too, and the front door shall need no more than to read. Readers and writers keep each other waiting for the moment
//! of a change, which costs nothing here: no request waits for the database.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use crate::config::{Key, KeyHash, KeyLimits};

/// `pck1` in ASCII: tells our files from those of other programs (`PRAGMA application_id`).
const APPLICATION: i32 = 0x7063_6b31;

/// Of the table below (`PRAGMA user_version`).
const VERSION: i32 = 1;

const MAKE: &str = "
    CREATE TABLE keys (
        id TEXT PRIMARY KEY NOT NULL,
        hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
        name TEXT NOT NULL,
        plan TEXT,
        routes TEXT NOT NULL DEFAULT '[]',
        methods TEXT NOT NULL DEFAULT '[]',
        addresses TEXT NOT NULL DEFAULT '[]',
        created INTEGER NOT NULL,
        not_before INTEGER,
        expires INTEGER,
        revoked INTEGER
    ) STRICT;
    CREATE INDEX keys_by_name ON keys (name);";

const COLUMNS: &str = "id, hash, name, plan, routes, methods, addresses, created, not_before, expires, revoked";

/// How long the front door waits for whoever is writing; it asks again soon.
const READER_WAITS: Duration = Duration::from_millis(250);

/// How long a command waits for others.
const WRITER_WAITS: Duration = Duration::from_secs(5);

/// More keys than a front door has clients; they are all held in memory.
const MOST_KEYS: usize = 1_000_000;

/// Why a store of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no file.
    #[error("there is no such file")]
    Missing,
    /// Somebody else writes to it.
    #[error("another program has it locked")]
    Locked,
    /// There is no room for a change.
    #[error("its disk is full")]
    Full,
    /// It may be read, and not written.
    #[error("it may not be written: it is, or its folder is, read-only for this user")]
    ReadOnly,
    /// It may not be read, or is no file.
    #[error("it cannot be opened: this user may not read it, or not write into its folder")]
    NotOpened,
    /// It holds something else.
    #[error("it is no store of keys, or it is damaged")]
    NotAStore,
    /// A later version of the program made it.
    #[error("it was made by a newer version of portcullis")]
    Newer,
    /// Something in it makes no sense.
    #[error("what it says of the key `{id}` cannot be read: {what}")]
    BadKey {
        /// The key.
        id: String,
        /// The column.
        what: &'static str,
    },
    /// There are more than can be held.
    #[error("it has more than {MOST_KEYS} keys")]
    TooMany,
    /// Anything else that the database says.
    #[error(transparent)]
    Other(rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        // Not a list of ours: SQLite may come to know more.
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => Self::NotOpened,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::NotAStore,
            _ => Self::Other(error),
        }
    }
}

/// A key as it is listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The key.
    pub key: Key,
    /// When it was made.
    pub created: Timestamp,
}

/// All keys of a store, for whoever opens doors.
pub(super) fn read(path: &Path) -> Result<Vec<Key>, StoreError> {
    if !path.exists() {
        return Err(StoreError::Missing);
    }
    // What a command that was killed has left half done is undone where this user may write.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(READER_WAITS)?;
    let transaction = connection.transaction()?;
    is_ours(&transaction)?;
    let keys = all(&transaction)?;
    Ok(keys.into_iter().map(|listed| listed.key).collect())
}

/// A store that is being changed.
#[derive(Debug)]
pub struct Database(Connection);

impl Database {
    /// The store in this file, for commands that change it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing);
        }
        Self::open_or_make(path)
    }

    /// The same; it is made if it does not exist.
    pub fn open_or_make(path: &Path) -> Result<Self, StoreError> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(WRITER_WAITS)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let is_new = transaction.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?;
        if is_new {
            transaction.execute_batch(MAKE)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        is_ours(&transaction)?;
        transaction.commit()?;
        Ok(Self(connection))
    }

    /// All keys, those of one owner together.
    pub fn list(&mut self) -> Result<Vec<Listed>, StoreError> {
        all(&self.0.transaction()?)
    }

    /// Puts a key in. It must have an id.
    pub fn add(&mut self, key: &Key, now: Timestamp) -> Result<(), StoreError> {
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        insert(&transaction, key, now)?;
        Ok(transaction.commit()?)
    }

    /// Takes keys back, by the id of one or by the name of all of an owner's, and gives the ids of those that were not
    /// taken back before.
    pub fn revoke(&mut self, which: &str, now: Timestamp) -> Result<Vec<String>, StoreError> {
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let text = "UPDATE keys SET revoked = ?1 WHERE revoked IS NULL AND (id = ?2 OR name = ?2) RETURNING id";
        let revoked = {
            let mut statement = transaction.prepare(text)?;
            let ids = statement.query_map(params![now.as_second(), which], |row| row.get(0))?;
            ids.collect::<Result<_, _>>()?
        };
        transaction.commit()?;
        Ok(revoked)
    }

    /// Whether there is such a key, or an owner with any, in whatever state.
    pub fn knows(&mut self, which: &str) -> Result<bool, StoreError> {
        let text = "SELECT 1 FROM keys WHERE id = ?1 OR name = ?1 LIMIT 1";
        Ok(self.0.query_row(text, [which], |_| Ok(())).optional()?.is_some())
    }

    /// Gives an owner another key: with `make` of their newest that still opens, while all of them end at `end` at the
    /// latest. `None` if none of theirs opens any more.
    pub fn rotate<T>(
        &mut self,
        name: &str,
        (now, end): (Timestamp, Timestamp),
        make: impl FnOnce(&Key) -> (Key, T),
    ) -> Result<Option<T>, StoreError> {
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let opens = |key: &Key| key.revoked.is_none() && key.expires.is_none_or(|end| now < end);
        let keys = all(&transaction)?.into_iter();
        let theirs = keys.filter(|listed| *listed.key.name == *name && opens(&listed.key));
        // Of two that were made in the same second the one that ends later.
        let end_of = |key: &Key| key.expires.unwrap_or(Timestamp::MAX);
        let Some(newest) = theirs.max_by_key(|listed| (listed.created, end_of(&listed.key))) else { return Ok(None) };
        let (key, made) = make(&newest.key);
        transaction.execute(
            "UPDATE keys SET expires = ?1 \
             WHERE name = ?2 AND revoked IS NULL AND (expires IS NULL OR expires > ?1)",
            params![end.as_second(), name],
        )?;
        insert(&transaction, &key, now)?;
        transaction.commit()?;
        Ok(Some(made))
    }
}

fn is_ours(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let pragma = |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    match (pragma("application_id")?, pragma("user_version")?) {
        (APPLICATION, VERSION) => Ok(()),
        (APPLICATION, version) if version > VERSION => Err(StoreError::Newer),
        (_, _) => Err(StoreError::NotAStore),
    }
}

fn all(transaction: &Transaction<'_>) -> Result<Vec<Listed>, StoreError> {
    let mut statement = transaction.prepare(&format!("SELECT {COLUMNS} FROM keys ORDER BY name, created, id"))?;
    let mut rows = statement.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        if keys.len() == MOST_KEYS {
            return Err(StoreError::TooMany);
        }
        keys.push(listed(row)?);
    }
    Ok(keys)
}

/// One row. What cannot be read is never left out: a limit that nobody understands must not become none.
fn listed(row: &Row<'_>) -> Result<Listed, StoreError> {
    let id: String = row.get("id")?;
    let bad = |what| StoreError::BadKey { id: id.clone(), what };
    let time = |column| match row.get::<_, Option<i64>>(column)? {
        Some(second) => Timestamp::from_second(second).map(Some).map_err(|_| bad(column)),
        None => Ok(None),
    };
    let texts = |column| -> Result<Vec<String>, StoreError> {
        serde_json::from_str(&row.get::<_, String>(column)?).map_err(|_| bad(column))
    };
    let methods = texts("methods")?.into_iter().map(|method| method.parse::<Method>().map_err(|_| bad("methods")));
    let nets = texts("addresses")?.into_iter().map(|net| net.parse::<IpNet>().map_err(|_| bad("addresses")));
    let key = Key {
        id: Some(id.as_str().into()),
        hash: KeyHash(row.get::<_, Vec<u8>>("hash")?.try_into().map_err(|_| bad("hash"))?),
        name: row.get::<_, String>("name")?.into(),
        plan: row.get::<_, Option<String>>("plan")?.map(Into::into),
        limits: KeyLimits {
            routes: texts("routes")?.into_iter().map(Arc::from).collect(),
            methods: methods.collect::<Result<_, _>>()?,
            addresses: nets.collect::<Result<_, _>>()?,
        },
        not_before: time("not_before")?,
        expires: time("expires")?,
        revoked: time("revoked")?,
    };
    let created = time("created")?.ok_or_else(|| bad("created"))?;
    Ok(Listed { key, created })
}

fn insert(transaction: &Transaction<'_>, key: &Key, now: Timestamp) -> Result<(), StoreError> {
    let list = |items: Vec<String>| serde_json::Value::from(items).to_string();
    let second = |time: Option<Timestamp>| time.map(Timestamp::as_second);
    let limits = &key.limits;
    transaction.execute(
        &format!("INSERT INTO keys ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"),
        params![
            key.id.as_deref(),
            key.hash.0,
            &*key.name,
            key.plan.as_deref(),
            list(limits.routes.iter().map(ToString::to_string).collect()),
            list(limits.methods.iter().map(ToString::to_string).collect()),
            list(limits.addresses.iter().map(ToString::to_string).collect()),
            now.as_second(),
            second(key.not_before),
            second(key.expires),
            second(key.revoked),
        ],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::keys::text::{NewKey, hash};

    const NOON: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn after(seconds: i64) -> Timestamp {
        Timestamp::from_second(NOON.as_second() + seconds).unwrap()
    }

    fn key(name: &str, text: &str) -> Key {
        Key {
            id: Some(text.into()),
            hash: hash(text.as_bytes()),
            name: name.into(),
            plan: Some("gold".into()),
            limits: KeyLimits {
                routes: vec!["api".into()],
                methods: vec![Method::GET],
                addresses: vec!["10.0.0.0/8".parse().unwrap()],
            },
            not_before: Some(NOON),
            expires: Some(after(100)),
            revoked: None,
        }
    }

    fn made(folder: &tempfile::TempDir) -> (std::path::PathBuf, Database) {
        let path = folder.path().join("keys.db");
        let database = Database::open_or_make(&path).unwrap();
        (path, database)
    }

    #[test]
    fn a_key_is_read_as_it_was_put_in() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut database) = made(&folder);
        assert_eq!(read(&path).unwrap(), []);
        database.add(&key("ci", "one"), NOON).unwrap();
        assert_eq!(read(&path).unwrap(), [key("ci", "one")]);
        assert_eq!(database.list().unwrap()[0].created, NOON);
        assert!(matches!(database.add(&key("ci", "one"), NOON), Err(StoreError::Other(_))), "it is there already");
    }

    #[test]
    fn a_key_is_taken_back_once_by_its_id_or_by_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut database) = made(&folder);
        for (name, text) in [("ci", "one"), ("ci", "two"), ("web", "three")] {
            database.add(&key(name, text), NOON).unwrap();
        }
        assert_eq!(database.revoke("two", after(1)).unwrap(), ["two"]);
        assert_eq!(database.revoke("ci", after(2)).unwrap(), ["one"]);
        assert_eq!(database.revoke("ci", after(3)).unwrap(), [""; 0]);
        assert!(database.knows("ci").unwrap() && !database.knows("nobody").unwrap());
        let revoked: Vec<_> = read(&path).unwrap().into_iter().map(|key| key.revoked).collect();
        assert_eq!(revoked, [Some(after(2)), Some(after(1)), None]);
    }

    #[test]
    fn a_rotation_ends_the_old_key_after_the_overlap_and_never_later_than_it_would_have() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut database) = made(&folder);
        database.add(&key("ci", "one"), NOON).unwrap();
        let next = |text: &'static str| move |old: &Key| (Key { expires: None, ..key(&old.name, text) }, text);
        assert_eq!(database.rotate("ci", (after(1), after(51)), next("two")).unwrap(), Some("two"));
        assert_eq!(database.rotate("ci", (after(2), after(72)), next("three")).unwrap(), Some("three"));
        let ends: Vec<_> = read(&path).unwrap().into_iter().map(|key| (key.id.unwrap(), key.expires)).collect();
        let expected = [("one", Some(after(51))), ("two", Some(after(72))), ("three", None)];
        assert_eq!(ends, expected.map(|(id, end)| (Arc::from(id), end)));
        assert_eq!(database.rotate("nobody", (NOON, NOON), next("four")).unwrap(), None);
        database.revoke("ci", after(3)).unwrap();
        assert_eq!(database.rotate("ci", (after(4), after(5)), next("five")).unwrap(), None);
    }

    #[test]
    fn what_is_no_store_is_said_to_be_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.db");
        assert!(matches!(read(&path), Err(StoreError::Missing)));
        assert!(matches!(Database::open(&path), Err(StoreError::Missing)) && !path.exists());
        for contents in
            ["", "this is no database, but a text that is long enough to be taken for the head of one......"]
        {
            std::fs::write(&path, contents).unwrap();
            assert!(matches!(read(&path), Err(StoreError::NotAStore)), "{contents}: {:?}", read(&path));
        }
        std::fs::remove_file(&path).unwrap();
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (id)").unwrap();
        assert!(matches!(read(&path), Err(StoreError::NotAStore)));
        assert!(matches!(Database::open_or_make(&path), Err(StoreError::NotAStore)), "it is somebody else's");
        assert!(matches!(read(folder.path()), Err(StoreError::NotOpened)), "{:?}", read(folder.path()));
    }

    #[test]
    fn a_newer_store_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, database) = made(&folder);
        database.0.pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert!(matches!(read(&path), Err(StoreError::Newer)));
    }

    #[test]
    fn a_limit_that_cannot_be_read_is_never_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        for (column, value) in [
            ("routes", "'api'"),
            ("methods", "'[\"G T\"]'"),
            ("addresses", "'[\"here\"]'"),
            ("expires", "99999999999999"),
        ] {
            let path = folder.path().join(column);
            let mut database = Database::open_or_make(&path).unwrap();
            database.add(&key("ci", "one"), NOON).unwrap();
            database.0.execute(&format!("UPDATE keys SET {column} = {value}"), []).unwrap();
            assert!(matches!(read(&path), Err(StoreError::BadKey { what, .. }) if what == column), "{:?}", read(&path));
        }
    }

    #[test]
    fn who_is_locked_out_and_who_may_not_write_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut database) = made(&folder);
        let holder = Connection::open(&path).unwrap();
        holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert!(matches!(read(&path), Err(StoreError::Locked)), "{:?}", read(&path));
        holder.execute_batch("ROLLBACK").unwrap();
        database.0.pragma_update(None, "query_only", true).unwrap();
        assert!(matches!(database.add(&key("ci", &NewKey::make().id), NOON), Err(StoreError::ReadOnly)));
        database.0.pragma_update(None, "query_only", false).unwrap();
        let pages: i64 = database.0.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        database.0.pragma_update(None, "max_page_count", pages).unwrap();
        let large = Key { plan: Some("x".repeat(100_000).into()), ..key("ci", "large") };
        assert!(matches!(database.add(&large, NOON), Err(StoreError::Full)));
        assert_eq!(read(&path).unwrap(), [], "nothing of it is left");
    }
}
