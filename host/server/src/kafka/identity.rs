//! What tells clusters and topics from others of the same name: the ids that brokers gave them. The safe crate knows neither.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use rdkafka_sys::{self as sys, RDKafkaErrorCode as Code};

use super::callbacks::millis;
use super::client::REQUEST_MAX;
use super::metadata;
use super::native::NativeConsumer;

impl NativeConsumer {
    /// None where the brokers don't tell.
    pub fn cluster_id(&self) -> Option<String> {
        // SAFETY: the client is alive; the text is ours, to be freed by librdkafka.
        unsafe {
            let id = sys::rd_kafka_clusterid(self.as_ptr(), millis(REQUEST_MAX));
            if id.is_null() {
                return None;
            }
            let text = CStr::from_ptr(id).to_string_lossy().into_owned();
            sys::rd_kafka_mem_free(self.as_ptr(), id.cast());
            Some(text).filter(|text| !text.is_empty())
        }
    }

    /// Asks who leads the topic's partitions now. A client that never reads them finds it out in no other way: it goes on asking the
    /// broker that led them once.
    ///
    /// Returns whether somebody answered.
    pub fn refresh(&self, topic: &str) -> bool {
        let Ok(name) = CString::new(topic) else {
            return false;
        };
        // SAFETY: the client is alive; the topic is ours, and given back. What the answer says, the client keeps.
        unsafe {
            let topic = sys::rd_kafka_topic_new(self.as_ptr(), name.as_ptr(), ptr::null_mut());
            if topic.is_null() {
                return false;
            }
            let known = metadata::knows(self.as_ptr(), topic, REQUEST_MAX);
            sys::rd_kafka_topic_destroy(topic);
            known.is_some()
        }
    }

    /// None where the brokers are too old to have given it one.
    pub fn topic_id(&self, topic: &str) -> Result<Option<u128>, String> {
        let asked = Asked::new(self, topic)?;
        // SAFETY: the event is alive, and all that is read belongs to it.
        unsafe {
            let code = Code::from(sys::rd_kafka_event_error(asked.event));
            if code != Code::NoError {
                return Err(format!("topic {topic}: {code}"));
            }
            let result = sys::rd_kafka_event_DescribeTopics_result(asked.event);
            let mut count = 0;
            let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            if count != 1 {
                return Err(format!("topic {topic}: {count} answers"));
            }
            let description = *topics;
            let error = sys::rd_kafka_TopicDescription_error(description);
            let code = Code::from(sys::rd_kafka_error_code(error));
            if code != Code::NoError {
                return Err(format!("topic {topic}: {code}"));
            }
            let id = sys::rd_kafka_TopicDescription_topic_id(description);
            let high = sys::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
            let low = sys::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
            let id = u128::from(high) << 64 | u128::from(low);
            Ok(Some(id).filter(|&id| id != 0))
        }
    }
}

/// The answer to one question, with all that it took.
struct Asked {
    queue: *mut sys::rd_kafka_queue_t,
    event: *mut sys::rd_kafka_event_t,
}

impl Asked {
    fn new(client: &NativeConsumer, topic: &str) -> Result<Self, String> {
        let name = CString::new(topic).expect("Kafka's topic names hold no zero byte");
        let mut names = [name.as_ptr()];
        let mut said = [0 as c_char; 256];
        let timeout = millis(REQUEST_MAX);
        // Where nobody is named it is the controller that is asked, as of the last answer: in a cluster of several brokers any one of
        // them, for minutes after it has gone, and meanwhile without a pause.
        // SAFETY: the client is alive.
        let answering = unsafe { metadata::reach(client.as_ptr(), REQUEST_MAX / 2) }
            .ok_or_else(|| format!("topic {topic}: no broker answers"))?;
        // SAFETY: the client is alive; names and options are copied by the call that asks, and ours to free after it. The queue and
        // its event are freed by `drop`, the event first.
        let asked = unsafe {
            let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
            let options = sys::rd_kafka_AdminOptions_new(client.as_ptr(), kind);
            let text = said.as_mut_ptr();
            sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout, text, said.len());
            sys::rd_kafka_AdminOptions_set_broker(options, answering, text, said.len());
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
            let queue = sys::rd_kafka_queue_new(client.as_ptr());
            sys::rd_kafka_DescribeTopics(client.as_ptr(), topics, options, queue);
            sys::rd_kafka_TopicCollection_destroy(topics);
            sys::rd_kafka_AdminOptions_destroy(options);
            // The request's own time-out makes an event too.
            let event = sys::rd_kafka_queue_poll(queue, timeout + 1000);
            Self { queue, event }
        };
        if asked.event.is_null() {
            return Err(format!("topic {topic}: no answer"));
        }
        Ok(asked)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // SAFETY: both are ours; an event may be null.
        unsafe {
            if !self.event.is_null() {
                sys::rd_kafka_event_destroy(self.event);
            }
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::config::ClientConfig;

    use super::*;

    /// On librdkafka's own mock of three brokers, of which one has gone. It names a controller that isn't one of them, as brokers name, for
    /// a while, one that has gone.
    #[test]
    fn the_id_of_a_topic_is_asked_of_a_broker_that_answers() {
        let mut config = ClientConfig::new();
        config
            .set("test.mock.num.brokers", "3")
            .set("group.id", "none");
        let client = NativeConsumer::new(&config).unwrap();
        // SAFETY: the client has its mock for as long as it lives.
        unsafe {
            let mock = sys::rd_kafka_handle_mock_cluster(client.as_ptr());
            sys::rd_kafka_mock_topic_create(mock, c"in".as_ptr(), 1, 1);
            sys::rd_kafka_mock_broker_set_down(mock, 1);
        }
        assert!(client.topic_id("in").unwrap().is_some());
        assert!(client.topic_id("out").is_err());
    }
}
