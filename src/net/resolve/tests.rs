//! Both families of a name against a scripted name server, the system's files, and what is kept of names.

use std::fs;
use std::path::Path;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;

/// Far more than anything here takes, and far less than [`PATIENT`] lets a silent name server take.
const IN_TIME: Duration = Duration::from_secs(15);
/// A silent name server is waited for much longer than any test lasts, or for two seconds.
const PATIENT: &str = "options timeout:30 attempts:1\n";
const IMPATIENT: &str = "options timeout:1 attempts:1\n";

/// A name server that answers as the names say: what a label such as `yes-mute` has before the dash is the answer for
/// IPv4, what is behind it that for IPv6. There are no other names.
struct Script {
    address: SocketAddr,
    /// Answers what it was asked, and has `held` back so far.
    gate: watch::Sender<()>,
    server: JoinHandle<()>,
}

impl Script {
    async fn start() -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
        let (address, gate) = (socket.local_addr().expect("an address"), watch::Sender::new(()));
        let opened = gate.subscribe();
        let server = tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
                let query = Message::from_vec(&packet[..length]).expect("a query");
                let (socket, mut opened) = (Arc::clone(&socket), opened.clone());
                opened.mark_unchanged();
                tokio::spawn(async move {
                    let (word, kind) = script_of(&query);
                    if word == "mute" || word == "held" && opened.changed().await.is_err() {
                        return;
                    }
                    let answer = answer(query, &word, kind).to_vec().expect("an answer");
                    // Nobody may be there any more: fine.
                    let _ = socket.send_to(&answer, peer).await;
                });
            }
        });
        Self { address, gate, server }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn script_of(query: &Message) -> (String, RecordType) {
    let asked = &query.queries[0];
    let name = asked.name().to_ascii();
    let script = name.split('.').find_map(|label| label.split_once('-')).unwrap_or(("nx", "nx"));
    let word = if asked.query_type() == RecordType::A { script.0 } else { script.1 };
    (word.to_owned(), asked.query_type())
}

fn answer(query: Message, word: &str, kind: RecordType) -> Message {
    let name = query.queries[0].name().clone();
    let mut answer = query.into_response();
    match word {
        "yes" | "held" => {
            let address = if kind == RecordType::A { four() } else { six() };
            answer.add_answer(Record::from_rdata(name, 60, RData::from(address)));
        }
        "nx" => answer.metadata.response_code = ResponseCode::NXDomain,
        "fail" => answer.metadata.response_code = ResponseCode::ServFail,
        "none" => {}
        word => panic!("{word} is no answer"),
    }
    answer
}

/// A running service with files of its own.
struct Rig {
    files: TempDir,
    resolver: Resolver,
}

impl Rig {
    /// With these lines in its `resolv.conf`, and a server there that nobody asks.
    fn start(options: &str) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        fs::write(files.path().join("resolv.conf"), format!("nameserver 192.0.2.1\n{options}")).expect("a file");
        let (service, resolver) = ResolverService::with(system(files.path()));
        tokio::spawn(service.run());
        Self { files, resolver }
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.files.path().join(file), text).expect("a file");
    }

    /// The addresses of a host, or the reason why there are none.
    async fn ask(&self, host: &str, manner: &Manner) -> Result<Vec<IpAddr>, Reason> {
        let question = Question { host: host.into(), manner: manner.clone() };
        let answer = tokio::time::timeout(IN_TIME, self.resolver.lookup(&question)).await.expect("in time");
        answer.map(|addresses| addresses.list.to_vec()).map_err(|fault| fault.reason)
    }
}

fn system(directory: &Path) -> System {
    System::new(directory.join("resolv.conf"), directory.join("hosts"))
}

fn of(script: &Script) -> Manner {
    Manner { family: Family::Any, servers: Arc::from([script.address]), cached: true }
}

fn four() -> IpAddr {
    [192, 0, 2, 4].into()
}

fn six() -> IpAddr {
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, 6].into()
}

#[tokio::test]
async fn what_both_families_come_to_is_one_answer_or_one_reason() {
    let (script, rig) = (Script::start().await, Rig::start(IMPATIENT));
    let cases = [
        ("yes-yes", Ok(vec![four(), six()])),
        ("yes-none", Ok(vec![four()])),
        ("yes-nx", Ok(vec![four()])),
        ("yes-fail", Ok(vec![four()])),
        ("yes-mute", Ok(vec![four()])),
        ("none-yes", Ok(vec![six()])),
        ("fail-yes", Ok(vec![six()])),
        ("mute-yes", Ok(vec![six()])),
        ("nx-nx", Err(Reason::DnsNotFound)),
        ("nx-none", Err(Reason::DnsNotFound)),
        ("nx-fail", Err(Reason::DnsNotFound)),
        ("nx-mute", Err(Reason::DnsNotFound)),
        ("none-none", Err(Reason::DnsFailed)),
        ("none-nx", Err(Reason::DnsFailed)),
        ("none-fail", Err(Reason::DnsFailed)),
        ("fail-none", Err(Reason::DnsFailed)),
        ("fail-nx", Err(Reason::DnsFailed)),
        ("fail-fail", Err(Reason::DnsFailed)),
        ("fail-mute", Err(Reason::DnsFailed)),
        ("none-mute", Err(Reason::DnsTimeout)),
        ("mute-none", Err(Reason::DnsTimeout)),
        ("mute-nx", Err(Reason::DnsTimeout)),
        ("mute-fail", Err(Reason::DnsTimeout)),
        ("mute-mute", Err(Reason::DnsTimeout)),
    ];
    // All at the same time: those who wait for a silent server take as long as one of them.
    let (rig, mut asked) = (Arc::new(rig), JoinSet::new());
    for (label, expected) in cases {
        let (rig, manner) = (Arc::clone(&rig), of(&script));
        asked.spawn(async move { (label, rig.ask(&format!("{label}.test"), &manner).await, expected) });
    }
    while let Some(case) = asked.join_next().await {
        let (label, said, expected) = case.expect("a result");
        assert_eq!(said, expected, "{label}");
    }
}

/// The single families wait for nothing but their own answer.
#[tokio::test]
async fn one_family_is_asked_for_alone() {
    let (script, rig) = (Script::start().await, Rig::start(PATIENT));
    for (label, family, expected) in [
        ("yes-mute", Family::V4, Ok(vec![four()])),
        ("mute-yes", Family::V6, Ok(vec![six()])),
        ("none-mute", Family::V4, Err(Reason::DnsFailed)),
        ("mute-nx", Family::V6, Err(Reason::DnsNotFound)),
    ] {
        assert_eq!(rig.ask(&format!("{label}.test"), &Manner { family, ..of(&script) }).await, expected, "{label}");
    }
}

#[tokio::test]
async fn an_answer_without_an_address_is_told_from_no_answer() {
    let rig = Rig::start(&format!("search fail-yes.test none-yes.test\n{IMPATIENT}"));
    let script = Script::start().await;
    for (host, expected) in [
        ("none-yes.test", true),
        ("nx-yes.test", true),
        ("fail-yes.test", false),
        ("mute-yes.test", false),
        // One of the two names it may mean.
        ("peers", false),
    ] {
        let question = Question { host: host.into(), manner: Manner { family: Family::V4, ..of(&script) } };
        let fault = rig.resolver.lookup(&question).await.expect_err("no address");
        assert_eq!(says_none(&fault), expected, "{host}: {fault:?}");
    }
}

#[tokio::test]
async fn a_family_that_stays_silent_holds_up_the_other_once() {
    let (script, rig) = (Script::start().await, Rig::start(PATIENT));
    assert_eq!(rig.ask("nx-mute.test", &of(&script)).await, Err(Reason::DnsNotFound), "there is nothing to wait for");
    for (label, address) in [("yes-mute", four()), ("mute-yes", six())] {
        for cached in [true, false] {
            let manner = Manner { cached, ..of(&script) };
            let mut took = Vec::new();
            for _ in 0..6 {
                let asked = Instant::now();
                assert_eq!(rig.ask(&format!("{label}.test"), &manner).await, Ok(vec![address]));
                took.push(asked.elapsed());
            }
            assert!(took[0] >= lookup::RESOLUTION_DELAY, "{label}: {took:?}");
            // The quickest: a busy machine may hold up any.
            assert!(took[1..].iter().min() < Some(&lookup::RESOLUTION_DELAY), "{label}: {took:?}");
        }
    }
}

#[tokio::test]
async fn a_late_answer_is_used_when_it_is_there_and_while_the_next_one_is_not() {
    let (script, rig) = (Script::start().await, Rig::start(PATIENT));
    // Not kept by hickory: each lookup asks both.
    let manner = Manner { cached: false, ..of(&script) };
    for (label, first) in [("yes-held", four()), ("held-yes", six())] {
        let host = format!("{label}.test");
        for _ in 0..2 {
            assert_eq!(rig.ask(&host, &manner).await, Ok(vec![first]), "{label}");
        }
        script.gate.send_replace(());
        let asked = Instant::now();
        while rig.ask(&host, &manner).await != Ok(vec![four(), six()]) {
            assert!(asked.elapsed() < IN_TIME, "{label}: the late answer is not used");
        }
        // Whatever is asked now is held back for good.
        for _ in 0..3 {
            assert_eq!(rig.ask(&host, &manner).await, Ok(vec![four(), six()]), "{label}: silent again");
        }
    }
}

/// resolv.conf(5): `search` and `ndots`. Both families are those of one name.
#[tokio::test]
async fn a_host_is_the_first_of_its_names_that_has_addresses() {
    let script = Script::start().await;
    for (search, ndots, host, expected) in [
        ("nx-nx.test yes-none.test", 1, "shop", Ok(vec![four()])),
        ("none-none.test yes-none.test", 1, "shop", Ok(vec![four()])),
        ("yes-none.test none-yes.test", 1, "shop", Ok(vec![four()])),
        ("nx-nx.test", 1, "shop", Err(Reason::DnsNotFound)),
        ("fail-fail.test", 1, "shop", Err(Reason::DnsFailed)),
        ("none-none.test", 1, "shop", Err(Reason::DnsFailed)),
        // Enough dots: what it says comes first.
        ("none-yes.test", 1, "shop.yes-none.test", Ok(vec![four()])),
        ("none-yes.test", 5, "shop.yes-none.test", Ok(vec![four()])),
        ("yes-none.test", 5, "nx.test", Ok(vec![four()])),
        ("yes-none.test", 5, "nx.test.", Err(Reason::DnsNotFound)),
    ] {
        let rig = Rig::start(&format!("search {search}\n{PATIENT}options ndots:{ndots}\n"));
        assert_eq!(rig.ask(host, &of(&script)).await, expected, "{host} with {search}, {ndots} dots");
    }
    // One that is silent about one name is not asked for the next.
    let rig = Rig::start(&format!("search mute-mute.test nx-nx.test\n{IMPATIENT}"));
    assert_eq!(rig.ask("shop", &of(&script)).await, Err(Reason::DnsTimeout));
}

#[tokio::test]
async fn the_hosts_file_comes_before_all_name_servers() {
    let (script, rig) = (Script::start().await, Rig::start(&format!("search yes-yes.test\n{PATIENT}")));
    rig.write(
        "hosts",
        "# 10.9.9.9 Shop\n10.0.0.1\tShop shop.mute-mute.test # backends\n10.0.0.2 shop.\n\n::7 six shop.mute-mute.test\nno.address shop\n",
    );
    let [first, second, seventh] = ["10.0.0.1", "10.0.0.2", "::7"].map(|text| text.parse::<IpAddr>().expect("one"));
    for (host, family, expected) in [
        ("shop", Family::Any, vec![first, second]),
        ("SHOP.", Family::V4, vec![first, second]),
        ("shop.mute-mute.test", Family::Any, vec![first, seventh]),
        ("shop.mute-mute.test", Family::V6, vec![seventh]),
        ("six", Family::Any, vec![seventh]),
        // It lists no address of that family.
        ("six", Family::V4, vec![four()]),
    ] {
        let manner = Manner { family, ..of(&script) };
        assert_eq!(rig.ask(host, &manner).await, Ok(expected), "{host}, {family:?}");
    }
}

/// As many containers have it.
#[tokio::test]
async fn without_a_resolver_config_the_hosts_file_and_localhost_are_good() {
    let rig = Rig::start("");
    fs::remove_file(rig.files.path().join("resolv.conf")).expect("the file");
    rig.write("hosts", "10.0.0.1 shop\n");
    let manner = Manner { family: Family::V4, servers: Arc::from([]), cached: true };
    assert_eq!(rig.ask("shop", &manner).await, Ok(vec![IpAddr::from([10, 0, 0, 1])]));
    assert_eq!(rig.ask("localhost", &manner).await, Ok(vec![IpAddr::from([127, 0, 0, 1])]));
    let question = Question { host: "other.test".into(), manner };
    let fault = rig.resolver.lookup(&question).await.expect_err("nobody to ask");
    assert_eq!(fault.reason, Reason::DnsFailed);
    assert!(fault.cause_text().contains("resolv.conf"), "{}", fault.cause_text());
}

#[test]
fn files_are_read_when_they_have_changed_and_looked_at_once_a_second() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let (mut system, start) = (system(directory.path()), Instant::now());
    let mut seconds = 0..;
    let mut look = |system: &mut System| {
        let Change { servers, hosts } = system.look(start + Duration::from_secs(seconds.next().unwrap_or(0)));
        (servers, hosts)
    };
    assert_eq!(system.read_again(), Change::default(), "nobody has asked for a name yet");
    assert_eq!(look(&mut system), (true, false), "there is none, which is news");
    assert!(system.unusable().is_some_and(|why| why.contains("resolv.conf")));
    assert_eq!(look(&mut system), (false, false));

    fs::write(path("resolv.conf"), "nameserver 192.0.2.1\n").expect("a file");
    fs::write(path("hosts"), "10.0.0.1 shop\n").expect("a file");
    let soon = system.look(start + Duration::from_millis(1999));
    assert_eq!(soon, Change::default(), "looked at a moment ago");
    assert_eq!(look(&mut system), (true, true));
    assert_eq!(system.unusable(), None);
    assert_eq!(look(&mut system), (false, false));

    // Another file in its place, which says the same, and then one that does not.
    for (text, changed) in [("10.0.0.1 shop\n", false), ("10.0.0.2 shop\n", true), ("10.0.0.3 shop\n", true)] {
        fs::write(path("new"), text).expect("a file");
        fs::rename(path("new"), path("hosts")).expect("its name");
        assert_eq!(look(&mut system), (false, changed), "{text}");
    }
    // What can't be used leaves what was.
    fs::write(path("resolv.conf"), "search test\n").expect("a file");
    assert_eq!(look(&mut system), (false, false));
    fs::remove_file(path("resolv.conf")).expect("the file");
    assert_eq!(look(&mut system), (false, false));
    assert_eq!(system.unusable(), None);
    fs::remove_file(path("hosts")).expect("the file");
    assert_eq!(look(&mut system), (false, true));
    assert_eq!(system.listed("shop", Family::Any).count(), 0);
    assert_eq!(system.read_again(), Change::default(), "nothing new");
    fs::write(path("resolv.conf"), "nameserver 192.0.2.1\n").expect("a file");
    assert_eq!(system.read_again(), Change { servers: true, hosts: false });
}

#[tokio::test]
async fn who_waits_for_a_silent_name_server_is_answered_as_soon_as_the_files_name_another() {
    let (script, rig) = (Script::start().await, Rig::start(PATIENT));
    let question = |host: &str| Question { host: host.into(), manner: of(&script) };
    let (waits, listed) = (question("mute-yes.test"), question("mute-mute.test"));
    let (waits, listed) = tokio::join!(rig.resolver.lookup(&waits), async {
        let mut asked = Box::pin(rig.resolver.lookup(&listed));
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut asked).await.is_err(), "nobody has answered");
        rig.write("hosts", "10.0.0.1 mute-mute.test\n");
        rig.resolver.read_files().await;
        asked.await
    });
    assert_eq!(listed.map(|found| found.list.to_vec()).ok(), Some(vec![IpAddr::from([10, 0, 0, 1])]));
    assert_eq!(waits.map(|found| found.list.to_vec()).ok(), Some(vec![six()]), "asked again");
}

fn query(question: &Question) -> (Query, oneshot::Receiver<Answer>) {
    let (answer, answered) = oneshot::channel();
    (Query { question: question.clone(), answer }, answered)
}

/// A service without files, and a question that it answers by itself.
fn service() -> (ResolverService, Resolver, Question) {
    let (service, resolver) = ResolverService::with(system(Path::new("/nonexistent")));
    let manner = Manner { family: Family::Any, servers: Arc::from([]), cached: true };
    (service, resolver, Question { host: "localhost".into(), manner })
}

#[tokio::test]
async fn those_who_gave_up_are_not_kept_while_a_name_server_is_silent() {
    let (mut service, _resolver, mut question) = service();
    // TEST-NET-1 (RFC 5737): nobody answers.
    question.manner.servers = Arc::from([SocketAddr::from(([192, 0, 2, 1], 53))]);
    question.host = "shop.test".into();
    for _ in 0..10_000 {
        service.begin(query(&question).0, Instant::now());
    }
    let kept = service.names[&question].waiting.len();
    assert!(kept < 100, "{kept} askers are kept");
    assert_eq!(service.lookups.len(), 1, "one query for all");
}

#[tokio::test]
async fn a_name_whose_lookup_panics_fails_once_and_is_asked_for_again() {
    let (mut service, resolver, question) = service();
    let (asked, answered) = query(&question);
    service.begin(asked, Instant::now());
    service.lookups = JoinSet::new();
    service.running.clear();
    service.spawn(&question, async { panic!("by a test") });
    tokio::spawn(service.run());
    let answered = tokio::time::timeout(IN_TIME, answered).await.expect("in time");
    let fault = answered.expect("an answer").expect_err("a failure");
    assert_eq!(fault.reason, Reason::DnsFailed);
    assert!(fault.cause_text().contains("broke off"), "{}", fault.cause_text());
    let again = resolver.lookup(&question).await.expect("addresses");
    assert!(again.list.contains(&IpAddr::from([127, 0, 0, 1])));
}

#[tokio::test]
async fn what_nobody_asks_for_any_more_is_forgotten() {
    let (mut service, _resolver, question) = service();
    let start = Instant::now();
    for port in 1..=5 {
        let servers = Arc::from([SocketAddr::from(([192, 0, 2, 1], port))]);
        let manner = Manner { servers, ..question.manner.clone() };
        service.begin(query(&Question { manner, ..question.clone() }).0, start);
        let finished = service.lookups.join_next_with_id().await.expect("a lookup");
        service.finish(finished);
    }
    assert_eq!((service.resolvers.len(), service.names.len(), service.running.len()), (5, 5, 0));
    service.begin(query(&question).0, start + MAX_IDLE / 2);
    assert_eq!((service.resolvers.len(), service.names.len()), (6, 6));
    service.begin(query(&question).0, start + MAX_IDLE);
    assert_eq!((service.resolvers.len(), service.names.len(), service.running.len()), (1, 1, 1));
}
