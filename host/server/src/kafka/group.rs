//! Who is in a consumer group, and holds what: DescribeGroups, asked of the group's coordinator alone. (The older call that the safe
//! crate has asks every broker, and fails where one is away.)

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys::{self as sys, RDKafkaErrorCode as Code};

use super::callbacks::millis;
use super::client::REQUEST_MAX;
use crate::cluster::{Group, GroupMember};

/// How much longer than for the request itself its answer is waited for: the coordinator has to be found first.
const FINDING_MAX: Duration = Duration::from_secs(1);

/// # Errors
///
/// Why the group can't be described, in librdkafka's words.
pub fn describe<C: ClientContext>(client: &Client<C>, group: &str) -> Result<Group, String> {
    let name = CString::new(group).map_err(|_| "the group's name holds a zero byte")?;
    let mut names: [*const c_char; 1] = [name.as_ptr()];
    let native = client.native_ptr();
    let mut said = [0 as c_char; 512];
    // SAFETY: the client is alive throughout; queue and options are ours, and destroyed once each; the name is copied.
    let answer = unsafe {
        let queue = sys::rd_kafka_queue_new(native);
        let of = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
        let options = sys::rd_kafka_AdminOptions_new(native, of);
        sys::rd_kafka_AdminOptions_set_request_timeout(
            options,
            millis(REQUEST_MAX),
            said.as_mut_ptr(),
            said.len(),
        );
        sys::rd_kafka_DescribeConsumerGroups(native, names.as_mut_ptr(), 1, options, queue);
        let answer = sys::rd_kafka_queue_poll(queue, millis(REQUEST_MAX + FINDING_MAX));
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_queue_destroy(queue);
        answer
    };
    if answer.is_null() {
        return Err("no answer came in time".into());
    }
    // SAFETY: the answer is alive until it is destroyed, after its last use; what is read of it is copied.
    unsafe {
        let group = read(answer);
        sys::rd_kafka_event_destroy(answer);
        group
    }
}

/// # Safety
///
/// The answer is alive, and of a request for one group.
unsafe fn read(answer: *mut sys::rd_kafka_event_t) -> Result<Group, String> {
    // SAFETY: all that is pointed at belongs to the answer and lives as long; strings are C strings or null.
    unsafe {
        let code = sys::rd_kafka_event_error(answer);
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            let why = text(sys::rd_kafka_event_error_string(answer));
            return Err(why.unwrap_or_else(|| Code::from(code).to_string()));
        }
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(answer);
        if result.is_null() {
            return Err("the answer is to another question".into());
        }
        let mut count = 0;
        let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        if groups.is_null() || count != 1 {
            return Err(format!("{count} groups came for one"));
        }
        let group = *groups;
        let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
        if !error.is_null() {
            return match Code::from(sys::rd_kafka_error_code(error)) {
                // Nobody has joined yet.
                Code::GroupIdNotFound => Ok(Group::default()),
                code => {
                    Err(text(sys::rd_kafka_error_string(error)).unwrap_or_else(|| code.to_string()))
                }
            };
        }
        let stable = sys::rd_kafka_consumer_group_state_t::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE;
        let members = 0..sys::rd_kafka_ConsumerGroupDescription_member_count(group);
        let members =
            members.map(|at| member(sys::rd_kafka_ConsumerGroupDescription_member(group, at)));
        Ok(Group {
            is_settled: sys::rd_kafka_ConsumerGroupDescription_state(group) == stable,
            members: members.collect(),
        })
    }
}

/// # Safety
///
/// The member is alive.
unsafe fn member(member: *const sys::rd_kafka_MemberDescription_t) -> GroupMember {
    // SAFETY: strings and lists belong to the member; a list has `cnt` elements, whose topics are C strings.
    unsafe {
        let client_id = text(sys::rd_kafka_MemberDescription_client_id(member));
        let assignment = sys::rd_kafka_MemberDescription_assignment(member);
        let list = if assignment.is_null() {
            ptr::null()
        } else {
            sys::rd_kafka_MemberAssignment_partitions(assignment)
        };
        let elements = match list.as_ref() {
            Some(list) if list.cnt > 0 && !list.elems.is_null() => {
                std::slice::from_raw_parts(list.elems, usize::try_from(list.cnt).unwrap_or(0))
            }
            _ => &[],
        };
        let place = |at: &sys::rd_kafka_topic_partition_t| {
            Some((text(at.topic)?, u32::try_from(at.partition).ok()?))
        };
        let partitions = elements.iter().filter_map(place).collect();
        GroupMember::of(&client_id.unwrap_or_default(), partitions)
    }
}

/// # Safety
///
/// Null, or a C string.
unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: it is not null, and the caller vouches for the rest.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}
