//! A parent outlives its children: by type where a child is built, by lease while it runs.
//!
//! A child is built with a [`Lease`] of its parent. Only the parent's [`Children`] makes leases, and a lease
//! cannot be cloned, so there is one for each child. Dropping it, also while unwinding from a panic, sends
//! [`ChildGone`] to the parent with the child's last words. A lease holds its parent's own lease, so a
//! grandparent waits for grandchildren even if the parent between them panics.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};

use super::context::Context;
use super::messages::Close;

/// An address whose clones cost no allocation; a clone of the address itself costs two.
pub type ArcAddr<A> = Arc<Addr<A>>;

/// Something that is held only so that it lives.
pub trait Held: std::fmt::Debug + Send + Sync {}

impl<T: std::fmt::Debug + Send + Sync> Held for T {}

/// A child, as its parent sees it.
pub trait Child: Actor<Context = Context<Self>> + Handler<Close> {
    /// What names it among its siblings.
    type Key: Copy + Eq + Hash + Send + Unpin + std::fmt::Debug;
    /// Its last words.
    type Report: Clone + Send + Unpin + std::fmt::Debug;
}

/// A child is gone; these were its last words.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ChildGone<C: Child> {
    /// Which.
    pub key: C::Key,
    /// Which of those that had the key one after the other.
    pub generation: u32,
    /// Its last words.
    pub report: C::Report,
}

/// The right of one child to live below its parent. Held by the child, dropped with it.
pub struct Lease<P, C>
where
    P: Actor + Handler<ChildGone<C>>,
    P::Context: ToEnvelope<P, ChildGone<C>>,
    C: Child,
{
    parent: ArcAddr<P>,
    key: C::Key,
    generation: u32,
    report: C::Report,
    /// The parent's own lease: whoever is above waits for us too.
    _above: Option<Arc<dyn Held>>,
}

impl<P, C> Lease<P, C>
where
    P: Actor + Handler<ChildGone<C>>,
    P::Context: ToEnvelope<P, ChildGone<C>>,
    C: Child,
{
    /// The parent, for messages.
    pub fn parent(&self) -> &Addr<P> {
        &self.parent
    }

    /// What names the child.
    pub fn key(&self) -> C::Key {
        self.key
    }

    /// Keeps the last words up to date: they are sent when the lease is dropped.
    pub fn set_report(&mut self, report: C::Report) {
        self.report = report;
    }
}

impl<P, C> std::fmt::Debug for Lease<P, C>
where
    P: Actor + Handler<ChildGone<C>>,
    P::Context: ToEnvelope<P, ChildGone<C>>,
    C: Child,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<P, C> Drop for Lease<P, C>
where
    P: Actor + Handler<ChildGone<C>>,
    P::Context: ToEnvelope<P, ChildGone<C>>,
    C: Child,
{
    fn drop(&mut self) {
        self.parent.do_send(ChildGone {
            key: self.key,
            generation: self.generation,
            report: self.report.clone(),
        });
    }
}

/// A parent's registry of its children. Once closed it stays closed; when it is dropped, by a panic of the
/// parent, the children that are left are closed.
#[derive(Debug)]
pub struct Children<C: Child> {
    alive: HashMap<C::Key, (u32, ArcAddr<C>)>,
    next_generation: u32,
    is_closed: bool,
}

impl<C: Child> Default for Children<C> {
    fn default() -> Self {
        Children { alive: HashMap::new(), next_generation: 0, is_closed: false }
    }
}

impl<C: Child> Children<C> {
    /// A lease for a child at `address`, which is about to be built with it. `None` if the registry is
    /// closed, or the key is taken.
    pub fn lease<P>(
        &mut self,
        parent: &ArcAddr<P>,
        key: C::Key,
        address: ArcAddr<C>,
        report: C::Report,
        above: Option<Arc<dyn Held>>,
    ) -> Option<Lease<P, C>>
    where
        P: Actor + Handler<ChildGone<C>>,
        P::Context: ToEnvelope<P, ChildGone<C>>,
    {
        if self.is_closed || self.alive.contains_key(&key) {
            return None;
        }
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        self.alive.insert(key, (generation, address));
        Some(Lease { parent: parent.clone(), key, generation, report, _above: above })
    }

    /// A child has said that it is gone. `false` = an earlier one with its key, of which we knew.
    pub fn gone(&mut self, word: &ChildGone<C>) -> bool {
        match self.alive.get(&word.key) {
            Some((generation, _)) if *generation == word.generation => {
                self.alive.remove(&word.key);
                true
            }
            _ => false,
        }
    }

    /// No more children from now on; those that live are told to close.
    pub fn close(&mut self) {
        self.is_closed = true;
        self.close_all();
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether it is closed and the last child is gone: the parent may stop.
    pub fn is_finished(&self) -> bool {
        self.is_closed && self.alive.is_empty()
    }

    /// A child's address, for a message of its parent.
    pub fn get(&self, key: C::Key) -> Option<&Addr<C>> {
        self.alive.get(&key).map(|(_, address)| &**address)
    }

    /// All that live.
    pub fn iter(&self) -> impl Iterator<Item = &Addr<C>> {
        self.alive.values().map(|(_, address)| &**address)
    }

    /// How many live.
    pub fn len(&self) -> usize {
        self.alive.len()
    }

    /// Whether none lives.
    pub fn is_empty(&self) -> bool {
        self.alive.is_empty()
    }

    fn close_all(&self) {
        for (_, address) in self.alive.values() {
            address.do_send(Close);
        }
    }
}

impl<C: Child> Drop for Children<C> {
    fn drop(&mut self) {
        self.close_all();
    }
}
