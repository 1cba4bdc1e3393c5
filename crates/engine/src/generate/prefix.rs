//! Prompts whose keys and values are kept, by how they begin.
//!
//! A radix tree over tokens. Each node holds the sequence from the beginning to
//! its own end as a [`Cache`]; sequences share their blocks, so that a node
//! costs no more memory than its own part of the tokens, and a prompt that
//! leaves a known one anywhere, also within a block, takes over all that they
//! have in common: the block is copied when it is first written to.
//!
//! When room is needed, the leaf that was unused for the longest time goes
//! first, so that beginnings outlive what followed them. Pinned ones stay.
//! (As in SGLang's RadixAttention, Zheng et al. 2023, with blocks as in vLLM.)

use crate::model::Cache;
use crate::pinned::MAX_PINS;

/// Nodes at most. Each costs a table of its blocks beside the blocks themselves.
const MAX_NODES: usize = 2048;

/// The tree.
#[derive(Default)]
pub(super) struct Prefixes {
    children: Vec<Node>,
    nodes: usize,
    /// Counts uses; a clock that needs no time.
    now: u64,
    /// Moments at which what is pinned was pinned, oldest first.
    pins: Vec<u64>,
}

struct Node {
    /// What follows the parent's end.
    tokens: Vec<u32>,
    /// The whole sequence up to this node's end. Never written to.
    cache: Cache,
    children: Vec<Node>,
    used: u64,
    /// The moment at which it was pinned.
    pin: Option<u64>,
}

impl Prefixes {
    /// How many of `tokens`, from the first on, are known.
    pub(super) fn known(&self, tokens: &[u32]) -> usize {
        let (mut children, mut rest) = (&self.children, tokens);
        let mut known = 0;
        while let Some((node, common)) = find(children, rest) {
            known += common;
            if common < node.tokens.len() {
                break;
            }
            (children, rest) = (&node.children, &rest[common..]);
        }
        known
    }

    /// A sequence of as many of `tokens` as are known; `None` when the first is
    /// not.
    pub(super) fn take(&mut self, tokens: &[u32]) -> Option<Cache> {
        self.now += 1;
        let now = self.now;
        let (mut children, mut rest) = (&mut self.children, tokens);
        let (mut found, mut known) = (None, 0);
        while let Some((index, common)) = position(children, rest) {
            let node = &mut children[index];
            node.used = now;
            known += common;
            found = Some(&node.cache);
            if common < node.tokens.len() {
                break;
            }
            (children, rest) = (&mut node.children, &rest[common..]);
        }
        found.map(|cache| cache.fork(known))
    }

    /// Keeps the sequence of `tokens`, as long as `cache` is.
    pub(super) fn put(&mut self, tokens: &[u32], cache: &Cache, pin: bool) {
        let tokens = &tokens[..tokens.len().min(cache.len())];
        if tokens.is_empty() {
            return;
        }
        self.now += 1;
        let (now, pin) = (self.now, pin.then_some(self.now));
        self.nodes += put(&mut self.children, tokens, 0, cache, now, pin);
        if let Some(pin) = pin {
            self.pins.push(pin);
            // One that was pinned again, or within a longer one, counts once.
            let mut live = Vec::new();
            pins(&self.children, &mut live);
            self.pins.retain(|pin| live.contains(pin));
            if self.pins.len() > MAX_PINS {
                let oldest = self.pins.remove(0);
                unpin(&mut self.children, |pinned| pinned == oldest);
            }
        }
        while self.nodes > MAX_NODES && self.evict() {}
    }

    /// Drops the leaf that was unused for the longest time. `false` when only
    /// pinned ones are left, or none.
    pub(super) fn evict(&mut self) -> bool {
        let Some(oldest) = oldest_leaf(&self.children) else {
            return false;
        };
        let dropped = drop_leaf(&mut self.children, oldest);
        self.nodes -= usize::from(dropped);
        dropped
    }

    /// Lets go of the pin of exactly these tokens; `false` when there is none.
    /// The beginning of a longer pinned sequence has none of its own.
    pub(super) fn unpin(&mut self, tokens: &[u32]) -> bool {
        let Some(node) = exactly(&self.children, tokens) else {
            return false;
        };
        let mut below = Vec::new();
        pins(&node.children, &mut below);
        let Some(pin) = node.pin.filter(|pin| !below.contains(pin)) else {
            return false;
        };
        self.pins.retain(|other| *other != pin);
        unpin(&mut self.children, |pinned| pinned == pin);
        true
    }

    /// Lets go of the oldest pin. `false` when there is none.
    pub(super) fn unpin_oldest(&mut self) -> bool {
        if self.pins.is_empty() {
            return false;
        }
        let oldest = self.pins.remove(0);
        unpin(&mut self.children, |pinned| pinned == oldest);
        true
    }

    /// Whether nothing is kept.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.children.is_empty() && self.nodes == 0
    }

    /// How many parts the kept sequences are cut into.
    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The child that begins as `tokens` do, and how much they have in common. No
/// two children begin with the same token.
fn position(children: &[Node], tokens: &[u32]) -> Option<(usize, usize)> {
    let first = tokens.first()?;
    let index = children
        .iter()
        .position(|node| node.tokens.first() == Some(first))?;
    Some((index, common(&children[index].tokens, tokens)))
}

fn find<'a>(children: &'a [Node], tokens: &[u32]) -> Option<(&'a Node, usize)> {
    position(children, tokens).map(|(index, common)| (&children[index], common))
}

/// The node that ends where `tokens` do.
fn exactly<'a>(mut children: &'a [Node], mut tokens: &[u32]) -> Option<&'a Node> {
    loop {
        let (node, common) = find(children, tokens)?;
        if common < node.tokens.len() {
            return None;
        }
        tokens = &tokens[common..];
        if tokens.is_empty() {
            return Some(node);
        }
        children = &node.children;
    }
}

/// Returns how many nodes were added. `before` is where `children` begin.
fn put(
    mut children: &mut Vec<Node>,
    mut tokens: &[u32],
    mut before: usize,
    cache: &Cache,
    now: u64,
    pin: Option<u64>,
) -> usize {
    let mut added = 0;
    loop {
        let Some((index, common)) = position(children, tokens) else {
            children.push(Node {
                tokens: tokens.to_vec(),
                cache: cache.fork(before + tokens.len()),
                children: Vec::new(),
                used: now,
                pin,
            });
            return added + 1;
        };
        let node = &mut children[index];
        if common < node.tokens.len() && (common < tokens.len() || pin.is_some()) {
            node.split(common, before);
            added += 1;
        }
        node.used = now;
        if pin.is_some() {
            node.pin = pin;
        }
        before += common;
        tokens = &tokens[common..];
        if tokens.is_empty() {
            return added;
        }
        children = &mut node.children;
    }
}

impl Node {
    /// Makes this node end after `at` of its tokens; the rest becomes its child.
    fn split(&mut self, at: usize, before: usize) {
        let rest = self.tokens.split_off(at);
        let upper = self.cache.fork(before + at);
        let lower = Node {
            tokens: rest,
            cache: std::mem::replace(&mut self.cache, upper),
            children: std::mem::take(&mut self.children),
            used: self.used,
            pin: self.pin,
        };
        self.children.push(lower);
    }
}

/// The least recent use of a leaf that is not pinned.
fn oldest_leaf(children: &[Node]) -> Option<u64> {
    let of = |node: &Node| match (node.children.is_empty(), node.pin) {
        (true, None) => Some(node.used),
        (true, Some(_)) => None,
        (false, _) => oldest_leaf(&node.children),
    };
    children.iter().filter_map(of).min()
}

/// Drops one leaf that was last used then.
fn drop_leaf(children: &mut Vec<Node>, used: u64) -> bool {
    let is_it = |node: &Node| node.children.is_empty() && node.pin.is_none() && node.used == used;
    if let Some(index) = children.iter().position(is_it) {
        children.swap_remove(index);
        return true;
    }
    children
        .iter_mut()
        .any(|node| drop_leaf(&mut node.children, used))
}

fn pins(children: &[Node], into: &mut Vec<u64>) {
    for node in children {
        into.extend(node.pin);
        pins(&node.children, into);
    }
}

fn unpin(children: &mut [Node], is_it: impl Fn(u64) -> bool + Copy) {
    for node in children {
        if node.pin.is_some_and(is_it) {
            node.pin = None;
        }
        unpin(&mut node.children, is_it);
    }
}

#[cfg(test)]
#[path = "prefix_tests.rs"]
mod tests;
