//! On librdkafka's own mock of a broker.

use super::super::native::list;
use super::*;
use crate::cluster::Producer as _;
use millstream_engine::record::Headers;

/// With a transaction begun, and with its mock, which it has for as long as it lives.
fn begun(
    topics: &[String],
    settings: &[(&str, &str)],
) -> (Producer, *mut sys::rd_kafka_mock_cluster_t) {
    let mut config = ClientConfig::new();
    config
        .set("test.mock.num.brokers", "1")
        .set("transactional.id", "seat");
    for &(name, value) in settings {
        config.set(name, value);
    }
    let producer = Producer::new(&config, topics).unwrap();
    producer.init(Duration::from_secs(30)).unwrap();
    producer.begin().unwrap();
    // SAFETY: the client is alive.
    let mock = unsafe { sys::rd_kafka_handle_mock_cluster(producer.native) };
    (producer, mock)
}

fn send(producer: &mut Producer, partition: u32) {
    let headers = Headers::default();
    let record = Record {
        key: None,
        value: Some(b"value"),
        timestamp: -1,
        headers: headers.of(0),
    };
    producer.send(0, Some(partition), &record).unwrap();
}

/// On librdkafka's own mock of a broker, which answers late. A record that is under way as its client is destroyed may end the process.
#[test]
fn nothing_is_under_way_when_a_client_is_destroyed() {
    let (mut producer, mock) = begun(&["out".to_owned()], &[("linger.ms", "0")]);
    let answers_after = |millis| {
        // SAFETY: the mock is alive.
        unsafe {
            sys::rd_kafka_mock_topic_create(mock, c"out".as_ptr(), 2, 1);
            sys::rd_kafka_mock_broker_set_rtt(mock, -1, millis);
        }
    };
    answers_after(0);
    let send = |producer: &mut Producer| [0, 1].map(|partition| send(producer, partition));
    // The partitions are in the transaction: what comes next is sent at once.
    send(&mut producer);
    producer.flush(&|| false).unwrap();
    answers_after(10_000);
    send(&mut producer);
    let left = |producer: &Producer| {
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_outq_len(producer.native) }
    };
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(left(&producer), 2);
    assert!(producer.settle());
    assert_eq!(left(&producer), 0);
}

/// On librdkafka's own mock of a broker, which is away as the client is told to let go.
#[test]
fn no_partition_is_added_to_a_transaction_that_was_let_go() {
    let additions = |lets_go: bool| {
        let settings = [("reconnect.backoff.max.ms", "100")];
        let (mut producer, mock) = begun(&["out".to_owned()], &settings);
        // SAFETY: the mock is alive.
        unsafe {
            sys::rd_kafka_mock_topic_create(mock, c"out".as_ptr(), 1, 1);
            sys::rd_kafka_mock_start_request_tracking(mock);
            sys::rd_kafka_mock_broker_set_down(mock, 1);
        }
        send(&mut producer, 0);
        if lets_go {
            producer.stop_adding();
        }
        // SAFETY: as above.
        unsafe { sys::rd_kafka_mock_broker_set_up(mock, 1) };
        std::thread::sleep(Duration::from_secs(2));
        requests(mock, ADD_PARTITIONS_TO_TXN)
    };
    assert_eq!(additions(false), 1);
    assert_eq!(additions(true), 0);
}

/// How many of a kind have come to the mock.
fn requests(mock: *mut sys::rd_kafka_mock_cluster_t, key: i16) -> usize {
    let mut count = 0;
    // SAFETY: the mock is alive; its answer holds as many requests as it says, and is given back after the look.
    unsafe {
        let all = sys::rd_kafka_mock_get_requests(mock, &raw mut count);
        let of_kind = (0..count)
            .filter(|&at| sys::rd_kafka_mock_request_api_key(*all.add(at)) == key)
            .count();
        sys::rd_kafka_mock_request_destroy_array(all, count);
        of_kind
    }
}

/// On librdkafka's own mock of a broker, which turns one request of a kind away: librdkafka makes it again, and reports success.
#[test]
fn a_request_that_leaves_again_is_counted() {
    let check = |turned_away: Option<i16>, expected: Sends| {
        let (producer, mock) = begun(&[], &[]);
        let offsets = list([("in", 0, Some(1))]);
        // SAFETY: the mock is alive; the error is copied, and the group is destroyed below.
        let group = unsafe {
            sys::rd_kafka_mock_topic_create(mock, c"in".as_ptr(), 1, 1);
            if let Some(key) = turned_away {
                let error =
                    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS;
                sys::rd_kafka_mock_push_request_errors_array(mock, key, 1, &raw const error);
            }
            sys::rd_kafka_consumer_group_metadata_new(c"g".as_ptr())
        };
        let asked = Asked {
            native: producer.native,
            offsets: offsets.ptr(),
            group,
        };
        for call in [Asked::add_offsets, Asked::commit] {
            let give_up = Instant::now() + Duration::from_secs(30);
            let answer = insist(
                || Instant::now() > give_up,
                || producer.apart(asked, call, &|| false),
            );
            assert_eq!(answer, Some(Ok(())));
        }
        // SAFETY: no call is under way that reads it.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(group) };
        assert_eq!(producer.sends(), expected, "{turned_away:?}");
    };
    check(None, Sends::Once);
    check(Some(TXN_OFFSET_COMMIT), Sends::Several);
    check(Some(END_TXN), Sends::Several);
}
