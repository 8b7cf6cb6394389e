//! Stands in for the crate `libz-ng-sys`, so that `cargo build` needs a Rust toolchain and gcc and nothing else.
//!
//! Why it is here: `pingora-core` asks for `flate2` with the feature `zlib-ng`, which pulls in `libz-ng-sys`, whose
//! build script runs cmake. This crate offers the same symbols and forwards each of them to zlib-rs, the pure-Rust
//! zlib of the same speed class. `[patch.crates-io]` in the top `Cargo.toml` puts it in place.
//!
//! When it can go: as soon as `pingora-core` lets its user choose flate2's backend (then choose `zlib-rs`), or
//! `libz-ng-sys` builds without cmake. Delete this folder and the patch, nothing else refers to it.
//!
//! It is no general replacement: only what flate2 1.x calls is here.
#![allow(non_camel_case_types, non_snake_case, reason = "the names are zlib's")]
#![allow(clippy::missing_safety_doc, reason = "each function has the contract of zlib's function of that name")]

use libz_rs_sys as rs;
use std::os::raw::{c_char, c_int, c_ulong};

pub use rs::{
    Bytef, Z_BLOCK, Z_BUF_ERROR, Z_DATA_ERROR, Z_DEFAULT_STRATEGY, Z_DEFLATED, Z_FINISH,
    Z_FULL_FLUSH, Z_MEM_ERROR, Z_NEED_DICT, Z_NO_FLUSH, Z_OK, Z_PARTIAL_FLUSH, Z_STREAM_END,
    Z_STREAM_ERROR, Z_SYNC_FLUSH, internal_state, uInt, uLong, voidpf,
};

/// zlib's allocation callback.
pub type alloc_func = unsafe extern "C" fn(voidpf, uInt, uInt) -> voidpf;
/// zlib's release callback.
pub type free_func = unsafe extern "C" fn(voidpf, voidpf);

/// zlib's stream state, laid out as zlib-rs lays it out.
///
/// flate2 spells the two callbacks as plain functions where zlib-rs has `Option`; both have one ABI, since `None` of a
/// function pointer is the null pointer. The two assertions below hold the rest of the layout to zlib-rs'.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct z_stream {
    pub next_in: *mut Bytef,
    pub avail_in: uInt,
    pub total_in: c_ulong,
    pub next_out: *mut Bytef,
    pub avail_out: uInt,
    pub total_out: c_ulong,
    pub msg: *mut c_char,
    pub state: *mut internal_state,
    pub zalloc: alloc_func,
    pub zfree: free_func,
    pub opaque: voidpf,
    pub data_type: c_int,
    pub adler: c_ulong,
    pub reserved: uLong,
}
/// A pointer to the stream state, as every call takes it.
pub type z_streamp = *mut z_stream;

const _: () = assert!(size_of::<z_stream>() == size_of::<rs::z_stream>());
const _: () = assert!(
    std::mem::offset_of!(z_stream, adler) == std::mem::offset_of!(rs::z_stream, adler)
        && std::mem::offset_of!(z_stream, zfree) == std::mem::offset_of!(rs::z_stream, zfree)
);

/// Forwards each named function to zlib-rs, casting the stream pointer; the arguments are passed on as they are.
macro_rules! forward {
    ($($name:ident($($arg:ident: $kind:ty),*);)*) => {$(
        pub unsafe fn $name(stream: z_streamp, $($arg: $kind),*) -> c_int {
            // SAFETY: the caller keeps zlib's contract for this function, and the layouts are asserted equal above.
            unsafe { rs::$name(stream.cast(), $($arg),*) }
        }
    )*};
}

forward! {
    deflateInit2_(level: c_int, method: c_int, window_bits: c_int, mem_level: c_int, strategy: c_int, version: *const c_char, size: c_int);
    inflateInit2_(window_bits: c_int, version: *const c_char, size: c_int);
    deflate(flush: c_int);
    deflateEnd();
    deflateReset();
    deflateParams(level: c_int, strategy: c_int);
    deflateSetDictionary(dictionary: *const Bytef, length: uInt);
    inflate(flush: c_int);
    inflateEnd();
    inflateReset();
    inflateReset2(window_bits: c_int);
    inflateSetDictionary(dictionary: *const Bytef, length: uInt);
}

/// The version string that `deflateInit2_` and `inflateInit2_` compare.
pub unsafe fn zlibVersion() -> *const c_char {
    rs::zlibVersion()
}
