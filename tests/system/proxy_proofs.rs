//! The proxy shown to lose, hold and repeat what it is told to, and nothing else: before brokers that note what arrives, and when.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rig::ports;
use rig::proxy::{END_TXN, HEARTBEAT, Listening, Proxy, Then, When};

const SOON: Duration = Duration::from_secs(10);
const WHILE: Duration = Duration::from_millis(1000);
const NODES: u16 = 2;

/// A request that came to a broker, and by which of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Arrived {
    node: u16,
    connection: usize,
    number: i32,
}

/// Brokers that answer everything, and a proxy before them.
struct Ground {
    proxy: Proxy,
    arrived: Receiver<Arrived>,
}

impl Ground {
    fn new() -> Self {
        let (say, arrived) = channel();
        let listening = Listening::before(NODES);
        let brokers = ports::free(&[0, 1]);
        for node in 1..=NODES {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, brokers + node - 1));
            let (listener, say) = (listener.expect("the port is free"), say.clone());
            thread::spawn(move || {
                for (connection, client) in listener.incoming().flatten().enumerate() {
                    let say = say.clone();
                    thread::spawn(move || answer(client, node, connection, &say));
                }
            });
        }
        Self {
            proxy: listening.forward_to(brokers),
            arrived,
        }
    }

    fn connect(&self, node: u16) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.proxy.port() + node - 1));
        let stream = stream.expect("the proxy listens");
        stream.set_read_timeout(Some(SOON)).expect("a time-out");
        stream
    }

    fn arrived(&self) -> Arrived {
        self.arrived.recv_timeout(SOON).expect("a request arrives")
    }

    /// The next frame of this kind, and no other.
    fn once(&self, when: When, then: Then) {
        let mut then = Some(then);
        self.proxy
            .on_request(END_TXN, when, move |_| then.take().unwrap_or(Then::Forward));
    }
}

fn answer(mut client: TcpStream, node: u16, connection: usize, say: &Sender<Arrived>) {
    let mut frame = [0; 12];
    while client.read_exact(&mut frame).is_ok() {
        let number = frame[8..].try_into().expect("four bytes");
        let number = i32::from_be_bytes(number);
        let arrived = Arrived {
            node,
            connection,
            number,
        };
        let answer = [4_i32.to_be_bytes(), number.to_be_bytes()].concat();
        if say.send(arrived).is_err() || client.write_all(&answer).is_err() {
            return;
        }
    }
}

fn ask(stream: &mut TcpStream, api_key: i16, number: i32) {
    let head = [api_key.to_be_bytes(), 1_i16.to_be_bytes()].concat();
    let frame = [&8_i32.to_be_bytes()[..], &head, &number.to_be_bytes()].concat();
    stream.write_all(&frame).expect("the proxy takes it");
}

/// The next answer's number; none where the connection is closed.
fn hear(stream: &mut TcpStream) -> Option<i32> {
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).ok()?;
    let number = answer[4..].try_into().expect("four bytes");
    Some(i32::from_be_bytes(number))
}

#[test]
fn the_proxy_passes_on_what_it_is_not_told_of() {
    let ground = Ground::new();
    for node in [2, 1] {
        let mut client = ground.connect(node);
        ask(&mut client, HEARTBEAT, 7);
        assert_eq!((hear(&mut client), ground.arrived().node), (Some(7), node));
    }
    assert_eq!(ground.proxy.count(HEARTBEAT), 2);
}

#[test]
fn the_proxy_loses_a_request_or_an_answer() {
    let ground = Ground::new();
    let mut client = ground.connect(1);
    ground.once(When::Before, Then::Drop);
    ask(&mut client, END_TXN, 1);
    ask(&mut client, END_TXN, 2);
    assert_eq!((hear(&mut client), ground.arrived().number), (Some(2), 2));
    ground.once(When::Answered, Then::Drop);
    ask(&mut client, END_TXN, 3);
    ask(&mut client, END_TXN, 4);
    assert_eq!(hear(&mut client), Some(4));
    assert_eq!([ground.arrived().number, ground.arrived().number], [3, 4]);
}

#[test]
fn the_proxy_holds_a_request_or_an_answer() {
    let ground = Ground::new();
    let mut client = ground.connect(1);
    for when in [When::Before, When::Answered] {
        ground.once(when, Then::Hold(WHILE));
        let began = Instant::now();
        ask(&mut client, END_TXN, 1);
        ask(&mut client, HEARTBEAT, 2);
        while ground.proxy.pending() == 0 {
            assert!(began.elapsed() < SOON, "nothing is held");
            thread::sleep(Duration::from_millis(1));
        }
        // Others go on meanwhile.
        let mut other = ground.connect(1);
        ask(&mut other, END_TXN, 3);
        assert_eq!(hear(&mut other), Some(3));
        assert_eq!(ground.proxy.pending(), 1);
        assert_eq!([hear(&mut client), hear(&mut client)], [Some(1), Some(2)]);
        assert!(began.elapsed() >= WHILE, "{:?}", began.elapsed());
        assert_eq!(ground.proxy.pending(), 0);
    }
}

#[test]
fn the_proxy_sends_a_request_twice_and_answers_once() {
    let ground = Ground::new();
    let mut client = ground.connect(1);
    ground.once(When::Before, Then::Twice);
    ask(&mut client, END_TXN, 1);
    ask(&mut client, END_TXN, 2);
    assert_eq!([hear(&mut client), hear(&mut client)], [Some(1), Some(2)]);
    let arrived = [(); 3].map(|()| ground.arrived());
    assert_eq!(arrived.map(|arrived| arrived.number), [1, 1, 2]);
    assert_eq!(arrived[0].connection, arrived[1].connection);
}

#[test]
fn the_proxy_lets_a_request_come_late_on_another_connection() {
    let ground = Ground::new();
    ground.once(When::Before, Then::Late(WHILE));
    let began = Instant::now();
    let mut client = ground.connect(1);
    ask(&mut client, END_TXN, 1);
    assert_eq!(hear(&mut client), None, "its connection is cut");
    let mut client = ground.connect(1);
    ask(&mut client, END_TXN, 2);
    assert_eq!((hear(&mut client), ground.arrived().number), (Some(2), 2));
    assert_eq!(ground.proxy.pending(), 1);
    let late = ground.arrived();
    assert!(began.elapsed() >= WHILE, "{:?}", began.elapsed());
    assert_eq!((late.node, late.number), (1, 1));
}
