//! What Kafka answers when it refuses, by Kafka's names and numbers.

use std::fmt;

/// What the broker answers, or why it refuses.
pub type Answer<T> = Result<T, Error>;

macro_rules! errors {
    ($($(#[$about:meta])* $name:ident = $code:literal, $kafka:literal;)*) => {
        /// An error code of the Kafka protocol (<https://kafka.apache.org/protocol#protocol_error_codes>). It is written as there:
        /// `INVALID_PRODUCER_EPOCH`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(i16)]
        pub enum Error {
            $($(#[$about])* $name = $code,)*
        }

        impl Error {
            /// All that this broker answers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The protocol's number.
            pub fn code(self) -> i16 {
                self as i16
            }
        }

        impl fmt::Display for Error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $kafka,)*
                })
            }
        }
    };
}

errors! {
    /// The offset lies before the log's start or past its end.
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE";
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION";
    /// The batch is larger than the topic's `max.message.bytes`.
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE";
    /// The metadata of an offset is longer than `offset.metadata.max.bytes`.
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE";
    /// The group has gone on to another generation.
    IllegalGeneration = 22, "ILLEGAL_GENERATION";
    /// The group doesn't know the member: it left, its session ended, or it never was there.
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID";
    /// The member has to join again.
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS";
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS";
    InvalidPartitions = 37, "INVALID_PARTITIONS";
    /// A batch is missing between the last one of this producer and this one.
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER";
    /// A newer producer of the same transactional.id is there, or the transaction timed out.
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH";
    /// There is no transaction that could end so.
    InvalidTxnState = 48, "INVALID_TXN_STATE";
    /// The transactional.id belongs to another producer id, or to none.
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING";
    /// Longer than `transaction.max.timeout.ms`, or not positive.
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT";
    /// The end of the last transaction is decided, and not written everywhere yet: ask again.
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS";
    /// Another member took the `group.instance.id` (KIP-345).
    FencedInstanceId = 82, "FENCED_INSTANCE_ID";
    /// A record without a key for a compacted topic.
    InvalidRecord = 87, "INVALID_RECORD";
    /// A transaction that is still open wrote an offset of that partition (KIP-447).
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT";
}

impl std::error::Error for Error {}
