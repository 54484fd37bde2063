//! What it means that something comes in place of a record, and what to do about it.

use rdkafka_sys::RDKafkaErrorCode as Code;

use super::native::{ErrorRef, RecordRef};
use crate::cluster::{ConsumeError, Consumed};

/// What to do where retention, or somebody, has deleted what was to be read.
pub const GONE: &str = "what was there is deleted. With the pipeline ended, set the group's offset to one that there is, with \
     kafka-consumer-groups.sh --reset-offsets, and start it again";

pub const STUCK: &str = "librdkafka has given it up. Start the process again";

/// There is nothing at the offset that was to be read.
pub fn is_gone(code: Code) -> bool {
    matches!(code, Code::AutoOffsetReset | Code::OffsetOutOfRange)
}

/// Errors that pass are logged and leave the place unsettled; what does not pass is returned.
pub fn judge<'a>(error: &ErrorRef<'a>) -> Result<Consumed<'a, RecordRef<'a>>, ConsumeError> {
    let ErrorRef { code, text, .. } = *error;
    match code {
        Code::FencedInstanceId => Err(ConsumeError::Fenced(text.into())),
        _ if error.fatal => Err(ConsumeError::Fatal(format!("{text} ({code:?})"))),
        Code::BadMessage | Code::BadCompression | Code::NotImplemented => {
            Ok(Consumed::Unreadable(text.into()))
        }
        _ if is_gone(code) => Ok(Consumed::Unreadable(text.into())),
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::InconsistentGroupProtocol
        | Code::InvalidSessionTimeout
        | Code::InvalidGroupId => Err(ConsumeError::Fatal(format!("{text} ({code:?})"))),
        _ => {
            tracing::warn!(target: "millstream::kafka", "{text} ({code:?})");
            Ok(Consumed::Unsettled)
        }
    }
}
