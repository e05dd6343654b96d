use super::*;

const LINKERDS: Belief = Belief {
    to_lose: 1,
    unanswered: Unanswered::Nothing,
};
const CAREFUL: Belief = Belief {
    to_lose: 2,
    unanswered: Unanswered::Fails,
};

fn dns() -> Dns {
    Dns::new(
        hickory_resolver::config::ResolverConfig::default(),
        hickory_resolver::config::ResolverOpts::default(),
        Handle::current(),
    )
}

fn place(host: &str, weight: f64) -> Place {
    Place {
        host: host.into(),
        port: 80,
        weight,
        authority: None,
    }
}

fn addresses(followed: &Followed) -> String {
    match followed.now(&mut Reads::new()) {
        Addr::Bound(all) => {
            let all: Vec<_> = all
                .iter()
                .map(|one| format!("{}*{}", one.addr, one.weight))
                .collect();
            all.join(" ")
        }
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn an_error_says_nothing_about_a_name_that_is_known() {
    let (followed, dns) = (Followed::new(), dns());
    assert_eq!(addresses(&followed), "Pending");
    followed.apply(Answer::Failed("down".into()), CAREFUL, &dns);
    assert_eq!(addresses(&followed), "Failed(\"down\")");
    let both = vec![place("10.0.0.1", 1.0), place("10.0.0.2", 0.5)];
    followed.apply(Answer::Places(both), CAREFUL, &dns);
    followed.apply(Answer::Failed("down".into()), CAREFUL, &dns);
    assert_eq!(addresses(&followed), "10.0.0.1:80*1 10.0.0.2:80*0.5");
    assert!(followed.in_trouble());
    followed.apply(Answer::Places(vec![place("10.0.0.2", 0.5)]), CAREFUL, &dns);
    assert_eq!(addresses(&followed), "10.0.0.2:80*0.5");
    assert!(!followed.in_trouble());
}

#[tokio::test]
async fn an_error_as_the_first_answer_lets_an_alternative_be_taken_where_linkerd_does_so() {
    let (followed, dns) = (Followed::new(), dns());
    followed.apply(Answer::Failed("down".into()), LINKERDS, &dns);
    assert_eq!(addresses(&followed), "Neg");
    followed.apply(Answer::Places(vec![place("10.0.0.1", 1.0)]), LINKERDS, &dns);
    assert_eq!(addresses(&followed), "10.0.0.1:80*1");
    followed.apply(Answer::Nothing, LINKERDS, &dns);
    assert_eq!(addresses(&followed), "Neg");
}

#[tokio::test]
async fn an_error_as_the_first_answer_is_none_where_a_name_is_waited_for() {
    let waiting = Belief {
        to_lose: 1,
        unanswered: Unanswered::Waits,
    };
    let (followed, dns) = (Followed::new(), dns());
    let mut reads = Reads::new();
    followed.existence.read(&mut reads);
    followed.apply(Answer::Failed("down".into()), waiting, &dns);
    assert_eq!(addresses(&followed), "Pending");
    // Who waits is told what for.
    assert!(reads.stale());
    followed.apply(Answer::Nothing, waiting, &dns);
    followed.apply(Answer::Failed("down".into()), waiting, &dns);
    assert_eq!(addresses(&followed), "Neg");
}

#[tokio::test]
async fn a_name_that_is_gone_in_one_answer_only_is_kept_where_two_are_asked_for() {
    let (followed, dns) = (Followed::new(), dns());
    let one = || Answer::Places(vec![place("10.0.0.1", 1.0)]);
    followed.apply(one(), CAREFUL, &dns);
    for answer in [Answer::Nothing, one(), Answer::Nothing] {
        followed.apply(answer, CAREFUL, &dns);
        assert_eq!(addresses(&followed), "10.0.0.1:80*1");
    }
    followed.apply(Answer::Nothing, CAREFUL, &dns);
    assert_eq!(addresses(&followed), "Neg");
    // A name that never was there needs no second answer.
    let made_up = Followed::new();
    made_up.apply(Answer::Nothing, CAREFUL, &dns);
    assert_eq!(addresses(&made_up), "Neg");
}

#[tokio::test]
async fn the_same_places_in_another_order_are_no_change() {
    let (followed, dns) = (Followed::new(), dns());
    let (a, b) = (place("10.0.0.1", 1.0), place("10.0.0.2", 1.0));
    followed.apply(Answer::Places(vec![a.clone(), b.clone()]), CAREFUL, &dns);
    let mut reads = Reads::new();
    followed.addr(&mut reads);
    followed.apply(Answer::Places(vec![b, a.clone()]), CAREFUL, &dns);
    assert!(!reads.stale());
    followed.apply(Answer::Places(vec![a]), CAREFUL, &dns);
    assert!(reads.stale());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_nobody_uses_is_given_up_and_one_that_somebody_looks_at_is_not() {
    let table = Table::new(Handle::current());
    let (used, idle) = (Path::read("/used").unwrap(), Path::read("/idle").unwrap());
    let forever = |_followed: Arc<Followed>| async move {
        let _held = _followed;
        std::future::pending::<()>().await;
    };
    // A name without an answer yet is looked at by who waits for it.
    let mut reads = Reads::new();
    let id = || (Path::root(), Path::root());
    assert!(matches!(
        table.lookup(&used, id(), &mut reads, forever),
        Activity::Pending(_)
    ));
    table.lookup(&idle, id(), &mut Reads::new(), forever);
    assert_eq!(table.entries().len(), 2);
    tokio::time::sleep(SWEEP * 3).await;
    assert!(table.entries().contains_key(&used));
    assert_eq!(table.entries().len(), 1);
    drop(reads);
    tokio::time::sleep(SWEEP * 3).await;
    assert_eq!(table.entries().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn so_many_names_are_followed_and_no_more() {
    let table = Table::new(Handle::current());
    let nothing = |_: Arc<Followed>| async {};
    let id = || (Path::root(), Path::root());
    for n in 0..MOST {
        let key = Path::utf8([format!("{n}").as_str()]);
        table.lookup(&key, id(), &mut Reads::new(), nothing);
    }
    let one_more = Path::read("/more").unwrap();
    let refused = table.lookup(&one_more, id(), &mut Reads::new(), nothing);
    assert!(matches!(refused, Activity::Failed(_)));
    tokio::time::sleep(SWEEP * 3).await;
    let taken = table.lookup(&one_more, id(), &mut Reads::new(), nothing);
    assert!(matches!(taken, Activity::Pending(_)));
}
