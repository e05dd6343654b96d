use bytes::BufMut;
use tokio::net::TcpListener;

use super::*;

type Told = mpsc::UnboundedReceiver<Event>;
type Answered = oneshot::Receiver<Result<Option<Bytes>, WireError>>;

/// A question about `path`, who gets its answer and who is told of changes.
fn question(op: Op, path: &str) -> (Question, Answered, Told) {
    let (answer, answered) = oneshot::channel();
    let (events, told) = mpsc::unbounded_channel();
    let path = path.to_owned();
    let question = Question {
        op,
        path,
        events,
        answer,
    };
    (question, answered, told)
}

fn deleted(path: &str) -> Event {
    Event {
        path: path.into(),
        kind: EventKind::Deleted,
    }
}

#[tokio::test]
async fn everybody_who_watches_is_told_once() {
    let mut talk = Talk::new(Vec::new());
    let (children, _answered, mut one) = question(Op::Children, "/a");
    let (exists, _answered, mut two) = question(Op::Exists, "/a");
    let (missing, mut answered, mut three) = question(Op::Children, "/a");
    talk.ask(children);
    talk.ask(exists);
    talk.ask(missing);
    talk.answer(1, Ok(Some(Bytes::new()))).unwrap();
    talk.answer(2, Ok(None)).unwrap();
    talk.answer(3, Ok(None)).unwrap();
    talk.tell(&deleted("/a"));
    talk.tell(&deleted("/a"));
    assert_eq!(one.try_recv(), Ok(deleted("/a")));
    assert!(one.try_recv().is_err());
    assert_eq!(two.try_recv(), Ok(deleted("/a")));
    // Without a node there is no watch on its children.
    assert!(three.try_recv().is_err());
    assert_eq!(answered.try_recv(), Ok(Ok(None)));
}

#[tokio::test]
async fn an_answer_to_another_question_breaks_the_connection() {
    let mut talk = Talk::new(Vec::new());
    talk.ask(question(Op::Data, "/a").0);
    assert!(talk.answer(7, Ok(None)).is_err());
    assert!(talk.answer(1, Ok(None)).is_err());
}

#[tokio::test]
async fn watches_are_taken_back_when_nobody_is_told_and_nobody_asks_anew() {
    let mut talk = Talk::new(Vec::new());
    let (used, _answered, _told) = question(Op::Exists, "/used");
    talk.ask(used);
    talk.ask(question(Op::Exists, "/idle").0);
    talk.ask(question(Op::Exists, "/again").0);
    for number in 1..=3 {
        talk.answer(number, Ok(None)).unwrap();
    }
    let (again, _answered, _told) = question(Op::Exists, "/again");
    talk.ask(again);
    talk.out.clear();
    talk.purge();
    let sent = wire::unwatch(5, Watched::Node, "/idle");
    assert_eq!(talk.out, sent);
    assert_eq!(talk.watches.len(), 2);
    talk.answer(4, Ok(None)).unwrap();
    // Whatever the server says about it.
    talk.answer(5, Err(WireError::Code(-121))).unwrap();
    assert!(talk.open.is_empty());
}

/// Accepts connections and sessions of 300 ms, and then says nothing.
async fn silent() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut answer = BytesMut::new();
            answer.put_i32(37);
            answer.put_i32(0);
            answer.put_i32(300);
            answer.put_i64(1);
            answer.put_i32(16);
            answer.put_slice(&[0; 17]);
            stream.write_all(&answer).await.unwrap();
            open.push(stream);
        }
    });
    ("127.0.0.1".into(), port)
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let session = Session::new(vec![silent().await], &Handle::current());
    let mut standing = session.standing();
    let connected = standing.wait_for(|now| now.connection.is_some()).await;
    let connection = connected.unwrap().connection.clone().unwrap();
    let (events, _told) = mpsc::unbounded_channel();
    let asked = connection.ask(Op::Data, "/a".to_owned(), &events);
    assert!(matches!(asked.answer().await, Err(ZkError::Gone)));
    connection.gone().await;
    let broken = standing.wait_for(|now| now.problem.is_some()).await;
    let problem = broken.unwrap().problem.clone().unwrap();
    assert!(problem.contains("no word for"), "{problem}");
}

#[test]
fn waits_grow_and_are_never_the_same_for_all() {
    assert_eq!(backoff(0, 0.0), BACKOFF.0 / 2);
    assert_eq!(backoff(0, 1.0), BACKOFF.0);
    assert_eq!(backoff(2, 1.0), BACKOFF.0 * 4);
    assert_eq!(backoff(1000, 1.0), BACKOFF.1);
}
