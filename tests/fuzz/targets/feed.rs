//! Lines of a feed: what one says reads back from the line that it is written as.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millstream::fuzzing::feed(data));
