//! Who is next: clients take turns, and each client's requests keep their order.

use std::collections::VecDeque;

/// A queue that serves clients in turn, so that one with many requests does not hold up the others.
#[derive(Debug)]
pub struct FairQueue<T> {
    /// Clients with something waiting, the next one first.
    clients: VecDeque<(String, VecDeque<T>)>,
    len: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            clients: VecDeque::new(),
            len: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// Items waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds an item behind the client's others.
    pub fn push(&mut self, client: &str, item: T) {
        self.len += 1;
        match self.clients.iter_mut().find(|(name, _)| name == client) {
            Some((_, items)) => items.push_back(item),
            None => self
                .clients
                .push_back((client.to_owned(), VecDeque::from([item]))),
        }
    }

    /// The next item.
    pub fn front(&self) -> Option<&T> {
        self.clients.front()?.1.front()
    }

    /// Takes the next item; its client goes behind the others.
    pub fn pop(&mut self) -> Option<T> {
        let (client, mut items) = self.clients.pop_front()?;
        let item = items.pop_front();
        self.len -= usize::from(item.is_some());
        if !items.is_empty() {
            self.clients.push_back((client, items));
        }
        item
    }

    /// Takes out the first item for which `is_it` holds.
    pub fn remove(&mut self, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let (client, at) = self
            .clients
            .iter()
            .enumerate()
            .find_map(|(client, (_, items))| {
                let at = items.iter().position(&is_it)?;
                Some((client, at))
            })?;
        let items = &mut self.clients[client].1;
        let item = items.remove(at);
        if items.is_empty() {
            self.clients.remove(client);
        }
        self.len -= usize::from(item.is_some());
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_take_turns_and_keep_their_order() {
        let mut queue = FairQueue::default();
        for (client, item) in [
            ("a", 1),
            ("a", 2),
            ("a", 3),
            ("b", 10),
            ("c", 20),
            ("b", 11),
        ] {
            queue.push(client, item);
        }
        assert_eq!(queue.len(), 6);
        assert_eq!(queue.front(), Some(&1));
        assert_eq!(queue.remove(|x| *x == 20), Some(20));
        assert_eq!(queue.remove(|x| *x == 20), None);
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [1, 10, 2, 11, 3]);
        assert_eq!(queue.len(), 0);
    }
}
