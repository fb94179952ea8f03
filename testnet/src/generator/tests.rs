//! The generator against a server that does what no node does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::history::Request;

const ANSWER: &str = r#"{"model_name":"m","id":"@","parameters":{"plan_id":"p","request_id":"r","attempts":1,"failovers":0,"variant":"base","nodes":"A","codecs":"raw,raw","latency_ms":1,"late":false},"outputs":[{"name":"y","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}]}"#;

/// What the server does with the n-th request of its life.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Answers,
    AnswersTwice,
    AnswersAsAnother,
    Dies,
    SaysNothing,
    Refuses,
    SpeaksNoHttp,
    /// And says no more, nor closes.
    SaysGarbage,
    /// Says that it closes, and answers again.
    ClosesAndAnswersTwice,
}

fn serve(manners: Vec<Manner>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut manners = manners.into_iter().peekable();
        while manners.peek().is_some() {
            let Ok((mut stream, _)) = listener.accept() else { return };
            while let Some(id) = read_request(&mut stream) {
                let Some(manner) = manners.next() else { return };
                if !answer(&mut stream, manner, &id) {
                    break;
                }
            }
        }
    });
    address
}

fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let text = String::from_utf8_lossy(&body).into_owned();
    Some(text.split('"').nth(3)?.to_owned())
}

/// Whether the connection stays.
fn answer(stream: &mut TcpStream, manner: Manner, id: &str) -> bool {
    let head = |status: &str, json: usize, all: usize| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {all}\r\ninference-header-content-length: {json}\r\n\r\n"
        )
    };
    let whole = |id: &str| {
        let json = ANSWER.replace('@', id);
        [head("200 OK", json.len(), json.len() + 4).as_bytes(), json.as_bytes(), &1f32.to_le_bytes()].concat()
    };
    let bytes = match manner {
        Manner::Answers => whole(id),
        Manner::AnswersTwice => [whole(id), whole(id)].concat(),
        Manner::AnswersAsAnother => whole("7-999"),
        Manner::Dies => return false,
        Manner::SaysNothing => Vec::new(),
        Manner::Refuses => {
            let body = r#"{"error":"too much"}"#;
            [head("429 Too Many Requests", body.len(), body.len()).as_bytes(), body.as_bytes()].concat()
        }
        Manner::SpeaksNoHttp => b"SSH-2.0-x\r\n\r\n".to_vec(),
        Manner::SaysGarbage => b"\0\x01garbage".to_vec(),
        Manner::ClosesAndAnswersTwice => {
            let closing =
                [b"HTTP/1.1 200 OK\r\nconnection: close", &whole(id)["HTTP/1.1 200 OK".len()..]].concat();
            stream.write_all(&closing).unwrap();
            closing
        }
    };
    stream.write_all(&bytes).unwrap();
    !matches!(manner, Manner::SpeaksNoHttp | Manner::ClosesAndAnswersTwice)
}

fn send(manners: &[Manner], address: Option<SocketAddr>) -> Recorded {
    let even = |at: usize| Arrival { at_us: at as u64 * 20_000, entry: 0, input: 0 };
    send_at(CoursePace::Open((0..manners.len()).map(even).collect()), address)
}

fn send_at(pace: CoursePace, address: Option<SocketAddr>) -> Recorded {
    let body = Body { head: "\",\"inputs\":[]}".into(), tensors: [].into() };
    let course = Course {
        path: "/v2/models/m/infer".to_owned(),
        bodies: vec![body],
        at: vec![0],
        pace,
        // Silence is over when deadline and grace are.
        timeout: Duration::from_millis(100),
    };
    Generator::begin(vec![course], "7".to_owned(), vec![address], Instant::now()).end()
}

fn outcomes(recorded: &Recorded) -> Vec<&Outcome> {
    let mut requests: Vec<&Request> = recorded.requests.iter().collect();
    requests.sort_by_key(|request| request.serial);
    requests.into_iter().map(|request| &request.outcome).collect()
}

#[test]
fn each_end_is_seen_as_what_it_is() {
    // One caller, so that each finds the server in its turn; the last waits for longer than the loop lasts.
    let manners = [
        Manner::Answers,
        Manner::Refuses,
        Manner::AnswersAsAnother,
        Manner::Dies,
        Manner::Answers,
        Manner::SpeaksNoHttp,
        Manner::SaysGarbage,
        Manner::SaysNothing,
    ];
    let pace = CoursePace::Closed { clients: 1, from_us: 0, until_us: GRACE.as_micros() as u64 };
    let recorded = send_at(pace, Some(serve(manners.to_vec())));
    let ends = outcomes(&recorded);
    assert_eq!((recorded.begun, ends.len()), (8, 8), "{recorded:?}");
    assert!(matches!(ends[0], Outcome::Answered(answer) if answer.has_own_id), "{:?}", ends[0]);
    assert!(matches!(ends[1], Outcome::Refused { status: 429, .. }), "{:?}", ends[1]);
    assert!(matches!(ends[2], Outcome::Answered(answer) if !answer.has_own_id), "{:?}", ends[2]);
    assert!(matches!(ends[3], Outcome::Broken { .. }), "{:?}", ends[3]);
    assert!(matches!(ends[5], Outcome::Malformed { .. }), "{:?}", ends[5]);
    assert!(matches!(ends[6], Outcome::Malformed { .. }), "{:?}", ends[6]);
    assert!(matches!(ends[7], Outcome::Silent), "{:?}", ends[7]);
    assert!(recorded.requests.iter().all(|request| request.sent_us.is_some()), "all were sent: {recorded:?}");
    assert_eq!((recorded.outputs.len(), recorded.unasked), (1, 0), "equal answers are kept once");
}

#[test]
fn a_second_answer_is_seen() {
    let manners = [Manner::AnswersTwice, Manner::Answers];
    let recorded = send(&manners, Some(serve(manners.to_vec())));
    assert_eq!(recorded.unasked, 1, "{recorded:?}");
    // On a connection that is about to close as well.
    // The next one is answered when both have been said.
    let manners = [Manner::ClosesAndAnswersTwice, Manner::Answers];
    let recorded = send(&manners, Some(serve(manners.to_vec())));
    assert_eq!(recorded.unasked, 1, "{recorded:?}");
}

#[test]
fn nobody_at_home_is_seen() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [Some(gone), None] {
        let recorded = send(&[Manner::Answers], address);
        let ends = outcomes(&recorded);
        assert!(matches!(ends[..], [Outcome::NotConnected { .. }]), "{ends:?}");
        assert!(recorded.requests[0].sent_us.is_none());
    }
}

#[test]
fn a_closed_loop_waits_for_its_answers() {
    let manners = vec![Manner::Answers; 10_000];
    let address = serve(manners);
    let body = Body { head: "\",\"inputs\":[]}".into(), tensors: [].into() };
    let pace = CoursePace::Closed { clients: 1, from_us: 0, until_us: 200_000 };
    let course = Course {
        path: "/v2/models/m/infer".to_owned(),
        bodies: vec![body],
        at: vec![0],
        pace,
        timeout: Duration::from_secs(5),
    };
    let recorded = Generator::begin(vec![course], "7".to_owned(), vec![Some(address)], Instant::now()).end();
    assert!(!recorded.requests.is_empty());
    let overlap = recorded.requests.windows(2).any(|pair| pair[1].intended_us < pair[0].ended_us);
    assert!(!overlap, "one caller sends one after the other");
    assert!(recorded.requests.iter().all(|request| request.answer().is_some()));
}

#[test]
fn what_was_never_sent_is_told() {
    let address = serve(vec![Manner::Answers; 10]);
    let body = Body { head: "\",\"inputs\":[]}".into(), tensors: [].into() };
    let arrival = |at_us| Arrival { at_us, entry: 0, input: 0 };
    let pace = CoursePace::Open([arrival(0), arrival(3_600_000_000), arrival(3_600_000_001)].into());
    let path = "/v2/models/m/infer".to_owned();
    let course = Course { path, bodies: vec![body], at: vec![0], pace, timeout: Duration::from_secs(5) };
    let generator = Generator::begin(vec![course], "7".to_owned(), vec![Some(address)], Instant::now());
    assert!(wait::even_if_interrupted(Duration::from_secs(20), || generator.count() == 1));
    generator.stop();
    assert_eq!(generator.end().faults, ["2 of 3 requests: never sent, since the load had ended"]);
}
