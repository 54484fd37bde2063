//! What every librdkafka client calls back, and its way to count time.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::time::Duration;

use rdkafka_sys as sys;

pub fn millis(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
}

pub extern "C" fn on_log(
    _: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    text: *const c_char,
) {
    // SAFETY: librdkafka lends two C strings during the callback.
    let (facility, text) = unsafe { (CStr::from_ptr(facility), CStr::from_ptr(text)) };
    let (facility, text) = (facility.to_string_lossy(), text.to_string_lossy());
    // Syslog's levels. Errors are warnings here: librdkafka goes on trying, and so do we.
    match level {
        0..=4 => tracing::warn!(target: "millstream::kafka", "{facility}: {text}"),
        5 | 6 => tracing::info!(target: "millstream::kafka", "{facility}: {text}"),
        _ => tracing::debug!(target: "millstream::kafka", "{facility}: {text}"),
    }
}

pub extern "C" fn on_error(
    _: *mut sys::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    _: *mut c_void,
) {
    // SAFETY: librdkafka lends a C string during the callback.
    let reason = unsafe { CStr::from_ptr(reason) }.to_string_lossy();
    // Lost connections are logged by `on_log`, each once; here they come by the hundred while nobody polls.
    const CONNECTION: [sys::rd_kafka_resp_err_t; 3] = [
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TRANSPORT,
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__RESOLVE,
    ];
    if CONNECTION.iter().any(|known| *known as c_int == code) {
        tracing::debug!(target: "millstream::kafka", "{reason}");
    } else {
        tracing::warn!(target: "millstream::kafka", "{reason}");
    }
}
