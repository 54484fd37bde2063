//! What the brokers say of a client's topics, asked for now.

use std::ptr;
use std::time::Duration;

use rdkafka_sys as sys;

use super::callbacks::millis;

/// Whether the brokers know a topic; none where they don't answer in time.
///
/// # Safety
///
/// Both are alive, and the topic is the client's.
pub unsafe fn knows(
    native: *mut sys::rd_kafka_t,
    topic: *mut sys::rd_kafka_topic_t,
    timeout: Duration,
) -> Option<bool> {
    // SAFETY: the caller vouches for client and topic; the answer is given back after the look.
    unsafe {
        let answer = fetch(native, topic, timeout)?;
        let missing = (*answer).topic_cnt == 1
            && (*(*answer).topics).err
                == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        sys::rd_kafka_metadata_destroy(answer);
        Some(!missing)
    }
}

/// Has a broker of the cluster answer, in twice this time at most, and tells its number. The first question goes to an address that the
/// client was given, which has none, and whose connection it drops once it has learnt of the brokers; the second one goes to one of these.
///
/// # Safety
///
/// The client is alive.
pub unsafe fn reach(native: *mut sys::rd_kafka_t, timeout: Duration) -> Option<i32> {
    (0..2).find_map(|_| {
        // SAFETY: the caller vouches for the client; the answer is given back after the look.
        let number = unsafe {
            let answer = fetch(native, ptr::null_mut(), timeout)?;
            let number = (*answer).orig_broker_id;
            sys::rd_kafka_metadata_destroy(answer);
            number
        };
        (number >= 0).then_some(number)
    })
}

/// Of one topic, or of those that the client knows.
///
/// # Safety
///
/// Client and topic are alive. What comes is the caller's to give back.
unsafe fn fetch(
    native: *mut sys::rd_kafka_t,
    topic: *mut sys::rd_kafka_topic_t,
    timeout: Duration,
) -> Option<*const sys::rd_kafka_metadata_t> {
    let mut answer: *const sys::rd_kafka_metadata_t = ptr::null();
    // SAFETY: the caller vouches for client and topic.
    let code =
        unsafe { sys::rd_kafka_metadata(native, 0, topic, &raw mut answer, millis(timeout)) };
    (code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then_some(answer)
}
