//! What a worker's part of a router takes over from the one before, when the configuration has changed: everything that
//! the change leaves as it is.

use std::rc::Rc;
use std::sync::Arc;

use super::{Client, Deposits, Local, Router, Service, Tree};

/// A route as it was under the predecessor.
pub(super) struct Former {
    /// Its branches, whose counters go on when the name is bound to the same again.
    pub(super) tree: Rc<Tree>,
    /// Holds the name's counters.
    service: Rc<Service>,
    /// When it was used last, in the worker's seconds.
    pub(super) used: u64,
}

impl Local {
    /// The same worker's part of the router that comes after this one: see [`Router::successor`]. Names are bound anew,
    /// each when it is asked for; what has other settings now begins anew, but for its counters.
    pub(crate) fn successor(&self, router: Arc<Router>) -> Rc<Self> {
        let new = Self::with(
            router,
            Rc::clone(&self.worker),
            Arc::clone(&self.stats),
            Rc::clone(&self.registration),
        );
        for service in self.services.borrow().values() {
            new.take_service(service);
        }
        for client in self.clients.borrow().values() {
            new.take_client(client);
        }
        new.registrations
            .borrow_mut()
            .clone_from(&self.registrations.borrow());
        new.take_routes(self);
        new
    }

    fn take_service(&self, before: &Rc<Service>) {
        let path = &before.shared.path;
        let shared = self.router.service(path);
        let service = match Arc::ptr_eq(&shared, &before.shared) {
            true => Rc::clone(before),
            false => Rc::new(Service {
                settings: Arc::clone(&shared.settings),
                shared,
                stats: Arc::clone(&before.stats),
                deposits: Deposits::default(),
                registration: Rc::clone(&before.registration),
            }),
        };
        self.services.borrow_mut().insert(path.clone(), service);
    }

    fn take_client(&self, before: &Rc<Client>) {
        let id = &before.shared.id;
        let shared = self.router.client(id);
        let client = match Arc::ptr_eq(&shared, &before.shared) {
            true => Rc::clone(before),
            false => {
                let stats = Arc::clone(&before.stats);
                Rc::new(Client::new(shared, stats, &self.worker))
            }
        };
        self.heirs.borrow_mut().push(Rc::clone(&client));
        self.clients.borrow_mut().insert(id.clone(), client);
    }

    fn take_routes(&self, before: &Self) {
        let mut former = self.former.borrow_mut();
        let mut take = |key: &[u8], path: &dtab::Path, tree: &Rc<Tree>, used| {
            if let Some(service) = self.services.borrow().get(path) {
                let route = Former {
                    tree: Rc::clone(tree),
                    service: Rc::clone(service),
                    used,
                };
                former.insert(key.into(), route);
            }
        };
        for (key, old) in before.former.borrow().iter() {
            take(key, &old.service.shared.path, &old.tree, old.used);
        }
        let (routes, own) = (before.routes.borrow(), before.own_routes.borrow());
        for (key, route) in routes.iter().chain(own.iter()) {
            let path = &route.service.shared.path;
            take(key, path, &route.tree.borrow(), route.used.get());
        }
    }
}
