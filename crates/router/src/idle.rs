//! Connections to endpoints that wait for their next request. The clients of a worker share them: many names may lead to the
//! same address, as all do that pass another node's router, and what each of them would keep open alone is seldom used.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::Upstream;
use crate::kept::less_room;
use crate::settings::{ClientSettings, ClientTls};
use crate::unanswered::Unanswered;

/// Idle connections to one address.
#[derive(Default)]
pub(crate) struct Idle {
    /// The one that was used last is the last.
    #[expect(clippy::vec_box, reason = "moved from hand to hand with each request")]
    connections: RefCell<Vec<Box<Upstream>>>,
    swept: Cell<Option<Instant>>,
}

impl Idle {
    /// The one that was used last: the others may grow old and be closed.
    pub(crate) fn take(&self) -> Option<Box<Upstream>> {
        self.connections.borrow_mut().pop()
    }

    pub(crate) fn put(&self, upstream: Box<Upstream>) {
        self.connections.borrow_mut().push(upstream);
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        drop(self.connections.take());
    }

    /// Closes those that the endpoint closed or that are `in_doubt`, as they were last heard of so long ago, and of those that
    /// were not used for `limit` all but `min`. Once for each `now`, whoever asks.
    pub(crate) fn sweep(
        &self,
        now: Instant,
        limit: Duration,
        min: usize,
        in_doubt: impl Fn(Instant) -> bool,
    ) {
        if self.swept.replace(Some(now)) == Some(now) {
            return;
        }
        let mut connections = self.connections.borrow_mut();
        connections.retain_mut(|one| one.io.is_quiet() && !in_doubt(one.idle_since));
        let fresh = |one: &Upstream| now.duration_since(one.idle_since) < limit;
        // The oldest stand first.
        let stale = connections.iter().take_while(|one| !fresh(one)).count();
        let over = stale.min(connections.len().saturating_sub(min));
        connections.drain(..over);
        if let Some(room) = less_room(connections.len(), connections.capacity()) {
            connections.shrink_to(room);
        }
    }
}

/// A worker's idle connections, by address.
pub(crate) struct IdlePools {
    all: RefCell<HashMap<SocketAddr, Vec<Agreed>>>,
    /// What all workers found out.
    pub(crate) unanswered: Arc<Unanswered>,
}

/// Who agrees on these terms finds connections there.
type Agreed = (Terms, Weak<Idle>);

/// What a client's settings say about its connections.
#[derive(Debug, PartialEq)]
struct Terms {
    idle: Duration,
    life: Option<Duration>,
    tls: Option<ClientTls>,
}

impl IdlePools {
    pub(crate) fn new(unanswered: Arc<Unanswered>) -> Self {
        Self {
            all: RefCell::default(),
            unanswered,
        }
    }

    /// Where a client with these settings finds connections to the address. Where their number is limited each client has its
    /// own.
    pub(crate) fn of(&self, addr: SocketAddr, settings: &ClientSettings) -> Rc<Idle> {
        if settings.pool_max < u32::MAX || settings.pool_min > 0 {
            return Rc::default();
        }
        let terms = Terms {
            idle: settings.pool_idle,
            life: settings.session_life,
            tls: settings.tls.clone(),
        };
        let mut all = self.all.borrow_mut();
        let here = all.entry(addr).or_default();
        here.retain(is_used);
        let known = here.iter().find(|(known, _)| *known == terms);
        if let Some(known) = known.and_then(|(_, idle)| idle.upgrade()) {
            return known;
        }
        let new = Rc::<Idle>::default();
        here.push((terms, Rc::downgrade(&new)));
        new
    }

    /// Forgets addresses that no client has any more.
    pub(crate) fn prune(&self) {
        self.all.borrow_mut().retain(|_, here| {
            here.retain(is_used);
            !here.is_empty()
        });
    }
}

fn is_used((_, idle): &Agreed) -> bool {
    idle.strong_count() > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{ClientPart, TlsVersions, Trust};

    #[test]
    fn clients_share_what_they_agree_on() {
        let pools = IdlePools::new(Arc::new(Unanswered::new(Instant::now())));
        let (here, there) = (([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], 80).into());
        let usual = || ClientPart::default().alone();
        let one = pools.of(here, &usual());
        assert!(Rc::ptr_eq(&one, &pools.of(here, &usual())));
        assert!(!Rc::ptr_eq(&one, &pools.of(there, &usual())));
        let limit = Some(Duration::from_secs(9));
        let tls = ClientTls {
            enabled: true,
            name: None,
            trust: Trust::Anything,
            identity: None,
            versions: TlsVersions::default(),
        };
        let others = [
            ClientPart {
                pool_idle: limit,
                ..ClientPart::default()
            },
            ClientPart {
                session_life: limit,
                ..ClientPart::default()
            },
            ClientPart {
                tls: Some(tls.clone()),
                ..ClientPart::default()
            },
        ];
        for part in others {
            let other = part.alone();
            let idle = pools.of(here, &other);
            assert!(!Rc::ptr_eq(&one, &idle), "{other:?}");
            assert!(Rc::ptr_eq(&idle, &pools.of(here, &other)), "{other:?}");
        }
        for limited in [
            ClientPart {
                pool_max: Some(3),
                ..ClientPart::default()
            },
            ClientPart {
                pool_min: Some(1),
                ..ClientPart::default()
            },
        ] {
            let limited = limited.alone();
            let idle = pools.of(here, &limited);
            assert!(!Rc::ptr_eq(&idle, &pools.of(here, &limited)));
        }
        pools.prune();
        assert_eq!(pools.all.borrow().len(), 1, "that of `one`");
        drop(one);
        pools.prune();
        assert!(pools.all.borrow().is_empty());
    }
}
