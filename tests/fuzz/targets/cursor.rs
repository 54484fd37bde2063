//! Cursors: what is read is what was written, and for the map it was written for.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millstream::fuzzing::cursor(data));
