//! How does an object come into the store, and out of it? One writes its body, and many read it.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_LENGTH;

use super::body::{Reader, Writer};
use super::{Object, Store};
use crate::cache::key::Key;

/// An object whose body is being written. Dropped before [`Filling::finish`], it is forgotten.
pub struct Filling {
    pub(super) store: &'static Store,
    pub(super) key: Key,
    pub(super) object: Arc<Object>,
    pub(super) writer: Writer,
    pub(super) is_found: bool,
}

impl Filling {
    /// Lets others find it before it is complete.
    pub fn publish(&mut self) {
        // First, for what two hold cannot be changed.
        let Some(object) = self.store.heeds_purges(&self.key, &mut self.object).then(|| self.object.clone()) else {
            return;
        };
        self.is_found = self.store.put(&self.key, object);
    }

    /// Adds bytes; `false` if they cannot be kept, and then the object cannot be completed.
    pub fn write(&mut self, data: &[u8]) -> bool {
        let store = self.store;
        self.writer.write(data, |charge, bytes| store.pay(charge, bytes))
    }

    /// Reads it from the start, also while it is being written.
    pub fn read(&self) -> Reading {
        Reading::new(self.object.clone())
    }

    /// Completes it; `false` if it is not stored: its body has not the length that was announced, or a purge means it.
    pub fn finish(self) -> bool {
        let Self { store, key, mut object, writer, is_found } = self;
        if !writer.finish() {
            if is_found {
                store.forget(&key, &object);
            }
            return false;
        }
        if is_found {
            let weight = object.weight();
            store.shard(key.url).reweigh(&key, &object, weight);
            return !store.is_purged(&key, &object);
        }
        if let Some((length, object)) = object.length().zip(Arc::get_mut(&mut object)) {
            // Now that it is known: clients may resume, and it need not be chunked. Never with 204 (RFC 9110, section 8.6).
            if object.head.status != StatusCode::NO_CONTENT {
                let _ = object.head.insert_header(CONTENT_LENGTH, length);
            }
            object.charge.resize(Object::cost(&object.head, &object.facts, key.encoded().len()));
        }
        store.put(&key, object)
    }

    /// Gives it up: nobody finds it any more, and its readers learn that it broke off.
    pub fn give_up(self) {
        if self.is_found {
            self.store.forget(&self.key, &self.object);
        }
    }
}

/// An object that is being read.
#[derive(Debug)]
pub struct Reading {
    object: Arc<Object>,
    reader: Reader,
}

impl Reading {
    /// Reads an object from its start.
    pub fn new(object: Arc<Object>) -> Self {
        let reader = Reader::new(object.body.clone());
        Self { object, reader }
    }

    /// What is read.
    pub fn object(&self) -> &Arc<Object> {
        &self.object
    }

    /// Reads on from `at`, to before `end`.
    pub fn seek(&mut self, at: u64, end: u64) {
        self.reader.seek(at, end);
    }

    /// The next bytes; `None` at the end. An error where the writer gave up.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BrokenOff> {
        self.reader.next().await.map_err(|_| BrokenOff)
    }
}

/// The body broke off while it was being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body that is being stored broke off")]
pub struct BrokenOff;
