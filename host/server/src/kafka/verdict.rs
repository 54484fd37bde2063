//! What librdkafka's transaction errors mean for an epoch.
//!
//! Invariant: once the transaction's commit was asked for, only its own success is an answer; everything else leaves it in doubt, to
//! be resolved by the committed offsets. That no request has left is no answer either: it may still leave, or have left uncounted.

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

/// How far a commit had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The offsets were being added; nobody had asked for the transaction to be committed.
    Offsets,
    /// Its commit had been asked for. Even if no request has left yet, one may still leave.
    End,
}

/// What becomes of an epoch whose commit ended with this error. (A seat that was taken by another process shows as
/// `FencedInstanceId` here, but so does one that we lost for a moment and took again ourselves: the consumer tells them apart.)
pub fn judge(error: &TransactionError, stage: Stage) -> Verdict {
    let why = error.to_string();
    match stage {
        Stage::End => Verdict::InDoubt(why),
        Stage::Offsets if error.is_refused() => Verdict::Fatal(why),
        Stage::Offsets => Verdict::Aborted(why),
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
    fn only_success_answers_a_request_to_commit() {
        let check = |code, stage, expected: fn(String) -> Verdict| {
            let error = TransactionError {
                code,
                text: "said".into(),
                retriable: false,
            };
            assert_eq!(
                judge(&error, stage),
                expected(error.to_string()),
                "{code:?} at {stage:?}"
            );
        };
        check(Code::IllegalGeneration, Stage::Offsets, Verdict::Aborted);
        check(Code::OperationTimedOut, Stage::Offsets, Verdict::Aborted);
        check(Code::ProducerFenced, Stage::Offsets, Verdict::Aborted);
        check(Code::FencedInstanceId, Stage::Offsets, Verdict::Aborted);
        check(
            Code::TopicAuthorizationFailed,
            Stage::Offsets,
            Verdict::Fatal,
        );
        check(Code::OperationTimedOut, Stage::End, Verdict::InDoubt);
        check(Code::ProducerFenced, Stage::End, Verdict::InDoubt);
        check(Code::TopicAuthorizationFailed, Stage::End, Verdict::InDoubt);
    }
}
