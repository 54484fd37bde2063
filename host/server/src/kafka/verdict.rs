//! What librdkafka's transaction errors mean for an epoch.
//!
//! Invariant: once a request to end the transaction has left, only its own success is an answer; everything else leaves it in doubt,
//! to be resolved by the committed offsets.

use std::ffi::CStr;

use millstream_engine::commit::verdict::Verdict;
use rdkafka_sys::{self as sys, RDKafkaErrorCode as Code};

/// An error of a transactional call, taken over from librdkafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionError {
    pub code: Code,
    pub text: String,
    /// The same call, made again, goes on where this one stopped.
    pub retriable: bool,
}

impl TransactionError {
    /// Takes over and frees the error object that a transactional call returned; `Ok` where there is none.
    ///
    /// # Safety
    ///
    /// `error` is null, or came from such a call and has not been freed.
    pub unsafe fn check(error: *mut sys::rd_kafka_error_t) -> Result<(), Self> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the caller vouches for the pointer; the string lives as long as the error and is copied before that is freed.
        let taken = unsafe {
            let text = CStr::from_ptr(sys::rd_kafka_error_string(error))
                .to_string_lossy()
                .into_owned();
            let code = Code::from(sys::rd_kafka_error_code(error));
            let retriable = sys::rd_kafka_error_is_retriable(error) != 0;
            sys::rd_kafka_error_destroy(error);
            Self {
                code,
                text,
                retriable,
            }
        };
        Err(taken)
    }

    /// A permission is missing: trying again would not help.
    pub fn is_refused(&self) -> bool {
        matches!(
            self.code,
            Code::TransactionalIdAuthorizationFailed
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::SaslAuthenticationFailed
                | Code::UnsupportedVersion
                | Code::InvalidTransactionTimeout
        )
    }
}

/// What becomes of an epoch whose commit ended with this error. `ends_sent` counts the requests to end the transaction that have
/// left this process.
pub fn judge(error: &TransactionError, ends_sent: u32) -> Verdict {
    let why = error.to_string();
    if error.code == Code::FencedInstanceId {
        return Verdict::Fenced(why);
    }
    if ends_sent > 0 {
        return Verdict::InDoubt(why);
    }
    if error.is_refused() {
        Verdict::Fatal(why)
    } else {
        Verdict::Aborted(why)
    }
}

impl std::fmt::Display for TransactionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?})", self.text, self.code)
    }
}

impl std::error::Error for TransactionError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_success_is_an_answer_to_a_request_that_left() {
        let error = |code| TransactionError {
            code,
            text: "said".into(),
            retriable: false,
        };
        let check = |code, ends_sent, expected: fn(String) -> Verdict| {
            let error = error(code);
            assert_eq!(
                judge(&error, ends_sent),
                expected(error.to_string()),
                "{code:?} after {ends_sent}"
            );
        };
        check(Code::IllegalGeneration, 0, Verdict::Aborted);
        check(Code::OperationTimedOut, 0, Verdict::Aborted);
        check(Code::OperationTimedOut, 1, Verdict::InDoubt);
        check(Code::ProducerFenced, 0, Verdict::Aborted);
        check(Code::ProducerFenced, 2, Verdict::InDoubt);
        check(Code::FencedInstanceId, 0, Verdict::Fenced);
        check(Code::TopicAuthorizationFailed, 0, Verdict::Fatal);
    }
}
