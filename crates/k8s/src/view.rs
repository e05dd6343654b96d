//! What all namers of one API server look at: the held objects, and for each name in use its present endpoints. Pure
//! but for a lock that is never held while waiting.
//!
//! A name that leads nowhere leaves nothing behind: who asked for it reads one of a fixed number of variables, shared
//! by many services, that changes when one of them appears, disappears or gets other ports. A name that leads
//! somewhere has its own variable; only its own service's changes touch it, and the first of them that finds nobody
//! holding it any more tells the last readers and drops it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use naming::{Addr, Addrs, Reads, Var};
use serde::{Deserialize, Serialize};

use crate::merge::{self, Leaving, Port, Resolved};
use crate::objects::{Ingress, Key, Members, Object, Service};
use crate::snapshot::{Content, Listed, Saved};
use crate::table::{Change, Event, Scope, Table};

/// How many variables the services share for appearing and disappearing. With 2,000 services, such a change wakes the
/// bindings of some eight others.
const BUCKETS: usize = 256;

/// One name behind a namer's prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Query {
    pub(crate) service: Key,
    pub(crate) port: Port,
    /// Only of objects with this label: key and value.
    pub(crate) label: Option<(Arc<str>, Arc<str>)>,
    /// The Service's load balancer instead of its endpoints.
    pub(crate) external: bool,
    /// When endpoints on their way out are part of the answer.
    pub(crate) leaving: Leaving,
}

/// The kinds of objects that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// EndpointSlices, or Endpoints in their place.
    Members,
    /// Services.
    Services,
}

/// What a query leads to.
pub(crate) enum Found {
    /// The first list of this kind is not there yet.
    Pending(Kind),
    Neg,
    Bound(Arc<Answer>),
}

/// The endpoints behind a query, as they change.
#[derive(Debug)]
pub(crate) struct Answer {
    addr: Var<Addr>,
}

impl Addrs for Answer {
    fn addr(&self, reads: &mut Reads) -> Addr {
        self.addr.addr(reads)
    }
}

/// A kind of object with its place in the view; implemented by what is kept of the objects.
pub(crate) trait Viewed: Clone + PartialEq + Send + Sync + 'static {
    const KIND: Kind;
    fn table(state: &mut State) -> &mut Table<Self>;
    /// Notes what changed; the services concerned, and whether they have other ports now.
    fn index(state: &mut State, change: Change<Self>, touched: &mut HashMap<Key, bool>);
}

/// See the module.
pub(crate) struct View {
    state: Mutex<State>,
    /// Changes whenever a list is complete for the first time.
    known: Var<u64>,
    buckets: Box<[Var<()>]>,
    hasher: RandomState,
}

#[derive(Default)]
pub(crate) struct State {
    members: Table<Members>,
    services: Table<Service>,
    by_service: HashMap<Key, BTreeSet<Key>>,
    answers: HashMap<Key, HashMap<Query, Arc<Answer>>>,
    listed: HashSet<(Kind, Scope)>,
    /// How often something changed that a snapshot would have.
    changes: u64,
    /// Addresses whose node is to be told, and where.
    nodes: Vec<(IpAddr, Var<Option<Arc<str>>>)>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            known: Var::new(0),
            buckets: (0..BUCKETS).map(|_| Var::new(())).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl View {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bucket(&self, service: &Key) -> &Var<()> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "only its last digits count"
        )]
        let hash = self.hasher.hash_one(service) as usize;
        &self.buckets[hash % BUCKETS]
    }

    /// Takes in events of one watch, and tells those who use the services concerned.
    pub(crate) fn apply<V: Viewed>(
        &self,
        scope: &Scope,
        events: impl IntoIterator<Item = Event<V>>,
    ) {
        let mut state = self.lock();
        let mut touched = HashMap::new();
        let mut news = false;
        for event in events {
            let done = matches!(event, Event::InitDone);
            for change in V::table(&mut state).apply(scope, event) {
                V::index(&mut state, change, &mut touched);
                state.changes += 1;
            }
            news |= done && state.listed.insert((V::KIND, scope.clone()));
        }
        state.changes += u64::from(news);
        for (service, other_ports) in touched {
            state.refresh(&service);
            if other_ports {
                self.bucket(&service).set(());
            }
        }
        if news {
            self.known.set(self.known.version() + 1);
        }
    }

    /// Where `query` leads now; `reads` tells when that changes.
    pub(crate) fn find(&self, query: Query, reads: &mut Reads) -> Found {
        self.known.read(reads);
        self.bucket(&query.service).read(reads);
        let mut state = self.lock();
        if let Some(kind) = state.unknown(&query) {
            return Found::Pending(kind);
        }
        match state.resolve(&query) {
            Resolved::Neg => Found::Neg,
            Resolved::Bound(endpoints) => Found::Bound(state.answer(query, Addr::bound(endpoints))),
        }
    }

    /// Whether a kind was listed once for a namespace.
    pub(crate) fn listed(&self, kind: Kind, namespace: &str) -> bool {
        self.lock().listed(kind, namespace)
    }

    /// What a fresh list tells that is not held, see [`Table::differences`].
    pub(crate) fn differences<V: Viewed>(
        &self,
        scope: &Scope,
        list: &HashMap<Key, u64>,
        at: u64,
    ) -> Vec<Key> {
        V::table(&mut self.lock()).differences(scope, list, at)
    }

    /// How many objects of `scope` are held, and how many of these are not among `objects`.
    pub(crate) fn missing_from<V: Viewed>(
        &self,
        scope: &Scope,
        objects: &[Object<V>],
    ) -> (usize, usize) {
        let list: HashSet<&Key> = objects.iter().map(|object| &object.key).collect();
        V::table(&mut self.lock()).missing_from(scope, &list)
    }

    /// Tells `node` on which node the endpoint with the address `ip` runs, now and whenever a slice says so.
    pub(crate) fn learn_node(&self, ip: IpAddr, node: Var<Option<Arc<str>>>) {
        let mut state = self.lock();
        for (_, members) in state.members.iter() {
            tell_node(&[(ip, node.clone())], members);
        }
        state.nodes.push((ip, node));
    }

    /// How often something changed that a snapshot would have.
    pub(crate) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// All that is held, for a snapshot; and the number of changes up to it.
    pub(crate) fn save(&self, target: String, confirmed: u64) -> (Content, u64) {
        let state = self.lock();
        let listed = state
            .listed
            .iter()
            .map(|(kind, scope)| Listed::new(*kind, scope));
        let members = state.members.objects();
        let services = state.services.objects();
        let content = Content {
            target,
            confirmed,
            listed: listed.collect(),
            members: members
                .map(|(key, version, value)| Saved::new(key, version, value.clone()))
                .collect(),
            services: services
                .map(|(key, version, value)| Saved::new(key, version, value.clone()))
                .collect(),
        };
        (content, state.changes)
    }

    /// Takes in a snapshot, before anything is known.
    pub(crate) fn restore(&self, content: Content) {
        let members = content.members.into_iter().map(Saved::object);
        self.apply(&Scope::Cluster, members.map(Event::Apply));
        let services = content.services.into_iter().map(Saved::object);
        self.apply(&Scope::Cluster, services.map(Event::Apply));
        let listed = content.listed.iter();
        self.lock()
            .listed
            .extend(listed.map(|listed| (listed.kind, listed.scope())));
        self.known.set(self.known.version() + 1);
    }

    /// The host names among the addresses of a Service's load balancer, and the port on them; `reads` tells when that
    /// changes. None when there are none.
    pub(crate) fn balancer_hosts(
        &self,
        query: &Query,
        reads: &mut Reads,
    ) -> Option<(Vec<Box<str>>, u16)> {
        self.bucket(&query.service).read(reads);
        let state = self.lock();
        let service = state.labelled(query)?;
        let port = merge::port_of(service, &query.port)?.number;
        let hosts = service.ingress.iter().filter_map(|ingress| match ingress {
            Ingress::Host(host) => Some(host.clone()),
            Ingress::Ip(_) => None,
        });
        let hosts: Vec<_> = hosts.collect();
        (!hosts.is_empty()).then_some((hosts, port))
    }

    /// Which Services, and which services with endpoints, are held.
    pub(crate) fn services(&self) -> BTreeSet<Key> {
        let state = self.lock();
        state
            .services
            .iter()
            .map(|(key, _)| key)
            .chain(state.by_service.keys())
            .cloned()
            .collect()
    }

    /// How many objects of a kind are held.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        let state = self.lock();
        match kind {
            Kind::Members => state.members.len(),
            Kind::Services => state.services.len(),
        }
    }

    /// The ports of a service, by what is held: for explanations.
    pub(crate) fn ports(&self, service: &Key) -> Option<Vec<String>> {
        let state = self.lock();
        let slices = state
            .by_service
            .get(service)
            .map(|_| state.slices(service, None));
        let named = slices
            .into_iter()
            .flatten()
            .flat_map(|slice| &slice.subsets)
            .flat_map(|subset| &subset.ports);
        let mut ports: BTreeSet<String> = named.map(|port| port.name.to_string()).collect();
        let own = state.services.get(service);
        ports.extend(
            own.into_iter()
                .flat_map(|own| &own.ports)
                .map(|port| port.number.to_string()),
        );
        ports.remove("");
        (own.is_some() || state.by_service.contains_key(service))
            .then(|| ports.into_iter().collect())
    }

    /// The names in use with their present addresses.
    pub(crate) fn in_use(&self) -> Vec<(Query, Arc<Addr>)> {
        let state = self.lock();
        let all = state.answers.values().flatten();
        let held = all.filter(|(_, answer)| Arc::strong_count(answer) > 1);
        held.map(|(query, answer)| (query.clone(), answer.addr.get()))
            .collect()
    }
}

impl State {
    fn listed(&self, kind: Kind, namespace: &str) -> bool {
        self.listed.contains(&(kind, Scope::Cluster))
            || self
                .listed
                .contains(&(kind, Scope::Namespace(namespace.into())))
    }

    /// The kind of object without which the query can't be answered yet.
    fn unknown(&self, query: &Query) -> Option<Kind> {
        let namespace = &query.service.namespace;
        let (members, services) = match query {
            Query { external: true, .. } => (false, true),
            Query {
                port: Port::Number(_),
                ..
            } => (true, true),
            Query {
                port: Port::Name(_),
                ..
            } => (true, false),
        };
        if members && !self.listed(Kind::Members, namespace) {
            return Some(Kind::Members);
        }
        (services && !self.listed(Kind::Services, namespace)).then_some(Kind::Services)
    }

    fn slices<'a>(
        &'a self,
        service: &Key,
        label: Option<&'a (Arc<str>, Arc<str>)>,
    ) -> impl Iterator<Item = &'a Members> + Clone + use<'a> {
        let keys = self.by_service.get(service).into_iter().flatten();
        let slices = keys.filter_map(|key| self.members.get(key));
        slices.filter(move |slice| {
            label.is_none_or(|(key, value)| {
                slice.labels.get(&**key).is_some_and(|own| **own == **value)
            })
        })
    }

    /// The Service itself, when it has the label that the query asks for.
    fn labelled(&self, query: &Query) -> Option<&Service> {
        let service = self.services.get(&query.service)?;
        let has = |(key, value): &(Arc<str>, Arc<str>)| {
            service
                .labels
                .get(&**key)
                .is_some_and(|own| **own == **value)
        };
        query.label.as_ref().is_none_or(has).then_some(service)
    }

    fn resolve(&self, query: &Query) -> Resolved {
        if query.external {
            return self.labelled(query).map_or(Resolved::Neg, |service| {
                merge::external(service, &query.port)
            });
        }
        let service = self.services.get(&query.service);
        let slices = self.slices(&query.service, query.label.as_ref());
        match (&query.port, service) {
            (Port::Name(name), _) => merge::named(slices, name, query.leaving),
            (Port::Number(number), Some(service)) => {
                merge::numbered(slices, service, *number, query.leaving)
            }
            (Port::Number(_), None) => Resolved::Neg,
        }
    }

    /// The variable of a query that is known to lead somewhere.
    fn answer(&mut self, query: Query, addr: Addr) -> Arc<Answer> {
        let answers = self.answers.entry(query.service.clone()).or_default();
        answers
            .entry(query)
            .or_insert_with(|| {
                Arc::new(Answer {
                    addr: Var::new(addr),
                })
            })
            .clone()
    }

    /// Tells those who use a service what it has now.
    fn refresh(&mut self, service: &Key) {
        let Some(mut answers) = self.answers.remove(service) else {
            return;
        };
        answers.retain(|query, answer| {
            let addr = match self.resolve(query) {
                Resolved::Neg => Addr::Neg,
                Resolved::Bound(endpoints) => Addr::bound(endpoints),
            };
            // Who only read it, without keeping it, waits for the variable, too: it goes with the news.
            let told = answer.addr.set_if_new(addr);
            Arc::strong_count(answer) > 1 || !told
        });
        if !answers.is_empty() {
            self.answers.insert(service.clone(), answers);
        }
    }
}

impl Viewed for Members {
    const KIND: Kind = Kind::Members;

    fn table(state: &mut State) -> &mut Table<Self> {
        &mut state.members
    }

    fn index(state: &mut State, change: Change<Self>, touched: &mut HashMap<Key, bool>) {
        let Change { key, before } = change;
        let after = state.members.get(&key);
        if let Some(after) = after {
            tell_node(&state.nodes, after);
        }
        let other_ports = match (&before, after) {
            (Some(before), Some(after)) => !same_shape(before, after),
            _ => true,
        };
        let service_of = |members: &Self| Key {
            namespace: key.namespace.clone(),
            name: members.service.clone(),
        };
        let (old, new) = (before.as_ref().map(service_of), after.map(service_of));
        if old != new
            && let Some(old) = &old
            && let Some(keys) = state.by_service.get_mut(old)
        {
            keys.remove(&key);
            if keys.is_empty() {
                state.by_service.remove(old);
            }
        }
        if let Some(new) = &new {
            state.by_service.entry(new.clone()).or_default().insert(key);
        }
        for service in old.into_iter().chain(new) {
            *touched.entry(service).or_default() |= other_ports;
        }
    }
}

/// Tells those who wait for an address's node what these endpoints say. Whether an endpoint is ready says nothing about
/// where it is; and a node that is known stays so when no slice names it any more.
fn tell_node(nodes: &[(IpAddr, Var<Option<Arc<str>>>)], members: &Members) {
    for (ip, told) in nodes {
        let all = members.subsets.iter().flat_map(|subset| &subset.members);
        let node = all
            .filter(|member| member.ip.to_canonical() == ip.to_canonical())
            .find_map(|member| member.node.clone());
        if node.is_some() {
            told.set_if_new(node);
        }
    }
}

/// Whether all that decides on neg or bound is the same; only endpoints may differ.
fn same_shape(a: &Members, b: &Members) -> bool {
    let shape = |members: &Members| -> Vec<_> {
        members
            .subsets
            .iter()
            .map(|subset| (subset.ports.clone(), subset.members.is_empty()))
            .collect()
    };
    a.service == b.service && a.labels == b.labels && shape(a) == shape(b)
}

impl Viewed for Service {
    const KIND: Kind = Kind::Services;

    fn table(state: &mut State) -> &mut Table<Self> {
        &mut state.services
    }

    fn index(_: &mut State, change: Change<Self>, touched: &mut HashMap<Key, bool>) {
        touched.insert(change.key, true);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::objects::{Condition, Member, MemberPort, Subset};

    fn slice(name: &str, service: &str, ips: &[&str]) -> Object<Members> {
        let member = |ip: &&str| Member {
            ip: ip.parse().unwrap(),
            node: None,
            condition: Condition::Ready,
        };
        let ports = vec![MemberPort {
            name: "http".into(),
            number: 80,
        }];
        let subsets = vec![Subset {
            ports,
            members: ips.iter().map(member).collect(),
        }];
        let value = Members {
            service: service.into(),
            subsets,
            ..Members::default()
        };
        Object {
            key: Key::new("a", name),
            version: 0,
            value,
        }
    }

    fn query(service: &str, port: &str) -> Query {
        Query {
            service: Key::new("a", service),
            port: Port::read(port),
            label: None,
            external: false,
            leaving: Leaving::Alone,
        }
    }

    fn listed() -> View {
        let view = View::default();
        view.apply::<Members>(&Scope::Cluster, [Event::Init, Event::InitDone]);
        view.apply::<Service>(&Scope::Cluster, [Event::Init, Event::InitDone]);
        view
    }

    fn bound(found: Found) -> Arc<Answer> {
        match found {
            Found::Bound(answer) => answer,
            _ => panic!("not bound"),
        }
    }

    fn addrs(answer: &Answer) -> Vec<String> {
        answer
            .addr
            .get()
            .endpoints()
            .iter()
            .map(|endpoint| endpoint.addr.to_string())
            .collect()
    }

    #[test]
    fn pending_until_the_first_list_then_neg_then_bound() {
        let view = View::default();
        let mut reads = Reads::new();
        assert!(matches!(
            view.find(query("web", "http"), &mut reads),
            Found::Pending(Kind::Members)
        ));
        view.apply::<Members>(
            &Scope::Namespace("b".into()),
            [Event::Init, Event::InitDone],
        );
        assert!(matches!(
            view.find(query("web", "http"), &mut Reads::new()),
            Found::Pending(_)
        ));
        view.apply::<Members>(
            &Scope::Namespace("a".into()),
            [Event::Init, Event::InitDone],
        );
        assert!(reads.stale());
        let mut reads = Reads::new();
        assert!(matches!(
            view.find(query("web", "http"), &mut reads),
            Found::Neg
        ));
        // A number needs the Service, too.
        assert!(matches!(
            view.find(query("web", "80"), &mut Reads::new()),
            Found::Pending(Kind::Services)
        ));
        view.apply(
            &Scope::Cluster,
            [Event::Apply(slice("s", "web", &["10.0.0.1"]))],
        );
        assert!(reads.stale());
        assert_eq!(
            addrs(&bound(view.find(query("web", "http"), &mut Reads::new()))),
            ["10.0.0.1:80"]
        );
    }

    #[test]
    fn changed_endpoints_reach_the_answer_and_leave_the_name_alone() {
        let view = listed();
        view.apply(
            &Scope::Cluster,
            [Event::Apply(slice("s", "web", &["10.0.0.1"]))],
        );
        let mut name = Reads::new();
        let answer = bound(view.find(query("web", "http"), &mut name));
        let mut endpoints = Reads::new();
        answer.addr(&mut endpoints);
        view.apply(
            &Scope::Cluster,
            [Event::Apply(slice("s2", "other", &["10.0.0.9"]))],
        );
        assert!(!endpoints.stale());
        view.apply(
            &Scope::Cluster,
            [Event::Apply(slice("s", "web", &["10.0.0.2", "10.0.0.1"]))],
        );
        assert!(endpoints.stale());
        assert_eq!(addrs(&answer), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert!(Arc::ptr_eq(
            &answer,
            &bound(view.find(query("web", "http"), &mut Reads::new()))
        ));
    }

    #[test]
    fn a_deleted_service_is_neg_and_comes_back_as_another() {
        let view = listed();
        view.apply(
            &Scope::Cluster,
            [Event::Apply(slice("s", "web", &["10.0.0.1"]))],
        );
        let mut reads = Reads::new();
        let answer = bound(view.find(query("web", "http"), &mut reads));
        view.apply::<Members>(&Scope::Cluster, [Event::Delete(Key::new("a", "s"), 0)]);
        assert!(reads.stale());
        assert_eq!(*answer.addr.get(), Addr::Neg);
        assert!(matches!(
            view.find(query("web", "http"), &mut Reads::new()),
            Found::Neg
        ));
        view.apply(
            &Scope::Cluster,
            [Event::Apply(slice("t", "web", &["10.0.0.7"]))],
        );
        assert_eq!(addrs(&answer), ["10.0.0.7:80"]);
    }

    #[test]
    fn a_slice_that_moves_to_another_service_leaves_the_old_one() {
        let view = listed();
        view.apply(
            &Scope::Cluster,
            [Event::Apply(slice("s", "web", &["10.0.0.1"]))],
        );
        view.apply(
            &Scope::Cluster,
            [Event::Apply(slice("s", "api", &["10.0.0.1"]))],
        );
        assert!(matches!(
            view.find(query("web", "http"), &mut Reads::new()),
            Found::Neg
        ));
        assert_eq!(
            addrs(&bound(view.find(query("api", "http"), &mut Reads::new()))),
            ["10.0.0.1:80"]
        );
        assert_eq!(view.services().len(), 1);
    }

    #[test]
    fn names_that_lead_nowhere_or_are_not_used_any_more_leave_nothing() {
        let view = listed();
        view.apply(
            &Scope::Cluster,
            [Event::Apply(slice("s", "web", &["10.0.0.1"]))],
        );
        for i in 0..1000 {
            view.find(query(&format!("no-{i}"), "http"), &mut Reads::new());
            view.find(query("web", &format!("no-{i}")), &mut Reads::new());
        }
        assert!(view.lock().answers.is_empty());
        let answer = bound(view.find(query("web", "http"), &mut Reads::new()));
        assert_eq!(view.in_use().len(), 1);
        drop(answer);
        assert!(view.in_use().is_empty());
        let mut reads = Reads::new();
        bound(view.find(query("web", "http"), &mut reads)).addr(&mut reads);
        view.apply(
            &Scope::Cluster,
            [Event::Apply(slice("s", "web", &["10.0.0.2"]))],
        );
        assert!(reads.stale(), "who only read it is told, too");
        assert!(view.lock().answers.is_empty());
    }

    /// One true change of a slice; none: it is deleted.
    type Step = (u8, Option<Members>);

    fn histories() -> impl Strategy<Value = Vec<Step>> {
        let members =
            (merge::tests::any_slice(), 0..2usize).prop_map(|(members, service)| Members {
                service: ["web", "api"][service].into(),
                ..members
            });
        // A slice changes more often than it goes away.
        let change = prop_oneof![3 => members.prop_map(Some), 1 => Just(None)];
        proptest::collection::vec((0..4u8, change), 1..30)
    }

    /// What the watch says of the steps, each with its place in history as its version.
    fn events(steps: &[Step], from: usize) -> Vec<Event<Members>> {
        let event = |(at, (name, change)): (usize, &Step)| {
            let (key, version) = (Key::new("a", &format!("s{name}")), (from + at + 1) as u64);
            match change {
                None => Event::Delete(key, version),
                Some(value) => Event::Apply(Object {
                    key,
                    version,
                    value: value.clone(),
                }),
            }
        };
        steps.iter().enumerate().map(event).collect()
    }

    /// What is there after the steps, with versions.
    fn truth(steps: &[Step]) -> BTreeMap<u8, (u64, Members)> {
        let mut state = BTreeMap::new();
        for (at, (name, change)) in steps.iter().enumerate() {
            match change {
                Some(members) => _ = state.insert(*name, (at as u64 + 1, members.clone())),
                None => _ = state.remove(name),
            }
        }
        state
    }

    /// Some events told twice, some in the wrong order.
    fn garbled(mut events: Vec<Event<Members>>, noise: &[(Index, Index)]) -> Vec<Event<Members>> {
        for (from, to) in noise
            .iter()
            .filter(|_| !events.is_empty())
            .collect::<Vec<_>>()
        {
            let (from, to) = (from.index(events.len()), to.index(events.len()));
            if from % 2 == 0 {
                events.insert(to, events[from].clone());
            } else {
                events.swap(from, to);
            }
        }
        events
    }

    fn sorted(answer: &Addr) -> Option<Vec<std::net::SocketAddr>> {
        match answer {
            Addr::Bound(endpoints) => Some(endpoints.iter().map(|one| one.addr).collect()),
            _ => None,
        }
    }

    fn agrees(
        view: &View,
        truth: &BTreeMap<u8, (u64, Members)>,
        held: &mut Vec<(Query, Arc<Answer>)>,
    ) {
        for service in ["web", "api"] {
            let all = truth.values().map(|(_, members)| members);
            let own: Vec<_> = all
                .filter(|members| *members.service == *service)
                .cloned()
                .collect();
            for (port, leaving) in [
                ("http", Leaving::Alone),
                ("admin", Leaving::Alone),
                ("http", Leaving::OnTheirNode),
            ] {
                let want = merge::tests::reference(&own, port, leaving);
                let asked = Query {
                    leaving,
                    ..query(service, port)
                };
                let found = match view.find(asked.clone(), &mut Reads::new()) {
                    Found::Bound(answer) => {
                        let found = sorted(&answer.addr.get());
                        held.push((asked.clone(), answer));
                        found
                    }
                    Found::Neg => None,
                    Found::Pending(_) => panic!("listed long ago"),
                };
                assert_eq!(found, want, "{service} {port} {leaving:?}");
                // Whoever has had an answer since long ago sees the same.
                for (_, answer) in held.iter().filter(|(own, _)| *own == asked) {
                    assert_eq!(sorted(&answer.addr.get()), want, "{service} {port}, held");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_history_however_garbled_ends_as_the_reference_merge(
            steps in histories(),
            list_at in any::<Index>(),
            noise in proptest::collection::vec(any::<(Index, Index)>(), 0..20),
        ) {
            let view = listed();
            let (list_at, mut held) = (list_at.index(steps.len() + 1), Vec::new());
            let (before, after) = steps.split_at(list_at);
            view.apply(&Scope::Cluster, garbled(events(before, 0), &noise));
            agrees(&view, &truth(before), &mut held);
            // The watch was lost: a list, and the watch from there.
            let list = truth(before).into_iter().map(|(name, (version, value))| Event::InitApply(Object {
                key: Key::new("a", &format!("s{name}")),
                version,
                value,
            }));
            view.apply(&Scope::Cluster, std::iter::once(Event::Init).chain(list).chain([Event::InitDone]));
            agrees(&view, &truth(before), &mut held);
            view.apply(&Scope::Cluster, garbled(events(after, list_at), &noise));
            agrees(&view, &truth(&steps), &mut held);
            // A snapshot of it all is the same again.
            let (saved, _) = view.save("t".to_owned(), 0);
            let other = View::default();
            other.restore(saved);
            agrees(&other, &truth(&steps), &mut Vec::new());
        }
    }

    #[test]
    fn the_node_of_an_address_is_learnt_from_slices_of_any_condition() {
        let on = |name: &str, ip: &str, node: Option<&str>| {
            let mut object = slice(name, "web", &[ip]);
            let member = &mut object.value.subsets[0].members[0];
            member.node = node.map(Into::into);
            member.condition = Condition::NotReady;
            Event::Apply(object)
        };
        let view = listed();
        view.apply(
            &Scope::Cluster,
            [on("s1", "10.0.0.9", Some("n9")), on("s2", "10.0.0.1", None)],
        );
        let node = Var::new(None);
        view.learn_node("10.0.0.1".parse().unwrap(), node.clone());
        assert_eq!(*node.get(), None, "a slice without nodes tells nothing");
        view.apply(&Scope::Cluster, [on("s2", "10.0.0.1", Some("n1"))]);
        assert_eq!(node.get().as_deref(), Some("n1"));
        view.apply::<Members>(&Scope::Cluster, [Event::Init, Event::InitDone]);
        assert_eq!(node.get().as_deref(), Some("n1"), "a pod stays where it is");
        // Who asks later is told at once.
        view.apply(&Scope::Cluster, [on("s3", "10.0.0.3", Some("n3"))]);
        let late = Var::new(None);
        view.learn_node("::ffff:10.0.0.3".parse().unwrap(), late.clone());
        assert_eq!(late.get().as_deref(), Some("n3"));
    }
}
