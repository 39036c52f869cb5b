//! What is asked of a worker's owner from outside, other than by requests: the last order counts.

use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What a worker is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// To finish what it serves, and to sleep until it is wanted.
    PutAway,
    /// To be there, whether anybody wants it or not.
    Wake,
}

/// The order that has not been looked at yet.
#[derive(Default)]
pub(super) struct Orders {
    last: Mutex<Option<Order>>,
    given: Notify,
}

impl Orders {
    /// Gives an order, in the place of one that nobody has looked at.
    pub(super) fn give(&self, order: Order) {
        *self.last() = Some(order);
        self.given.notify_one();
    }

    /// Waits for an order and takes it. May be cancelled. Only the owner waits.
    pub(super) async fn next(&self) -> Order {
        loop {
            if let Some(order) = self.last().take() {
                return order;
            }
            self.given.notified().await;
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<Order>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_order_counts_and_each_is_followed_once() {
        let orders = Orders::default();
        orders.give(Order::PutAway);
        orders.give(Order::Wake);
        assert_eq!(orders.next().await, Order::Wake);
        tokio::select! {
            biased;
            order = orders.next() => panic!("{order:?} came twice"),
            () = std::future::ready(()) => {}
        }
    }
}
