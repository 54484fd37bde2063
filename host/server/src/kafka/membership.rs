//! Who commits offsets to a group, as transactions are told of it.

use std::ffi::CStr;

use rdkafka_sys as sys;

/// The group's generation and our name in it.
#[derive(Debug)]
pub struct GroupMetadata(*mut sys::rd_kafka_consumer_group_metadata_t);

impl GroupMetadata {
    /// Of a group that nobody is a member of: only who commits offsets to it uses it.
    pub fn of(group: &CStr) -> Self {
        // SAFETY: the name is copied; the object is ours to destroy.
        Self(unsafe { sys::rd_kafka_consumer_group_metadata_new(group.as_ptr()) })
    }

    /// None where the client is no member: the broker checks nothing at all for a negative generation, and takes an empty member id (after a
    /// session that timed out here) for somebody who was fenced.
    ///
    /// # Safety
    ///
    /// The client is alive.
    pub unsafe fn of_member(client: *mut sys::rd_kafka_t) -> Option<Self> {
        // SAFETY: the caller vouches for the client; the object is ours to destroy.
        let metadata = Self(unsafe { sys::rd_kafka_consumer_group_metadata(client) });
        if metadata.0.is_null() {
            return None;
        }
        // SAFETY: the object is alive, and its member id is a C string that lives as long.
        let (generation, member) = unsafe {
            (
                sys::rd_kafka_consumer_group_metadata_generation_id(metadata.0),
                CStr::from_ptr(sys::rd_kafka_consumer_group_metadata_member_id(metadata.0)),
            )
        };
        (generation >= 0 && !member.is_empty()).then_some(metadata)
    }

    pub(super) fn as_ptr(&self) -> *const sys::rd_kafka_consumer_group_metadata_t {
        self.0
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it is ours and alive.
            unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0) };
        }
    }
}
