//! The pipeline file: any text is refused with problems that stand at its lines, or leaves nothing to check.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| millstream::fuzzing::pipeline_file(data));
