//! Runs futures side by side, a bounded number of them at a time, and keeps the order of what they return.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// A future that is run side by side with others. Its type is erased, because the compiler cannot tell of closures over
/// borrowed values that what they return may be sent to another thread.
pub(super) type OneOfMany<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// Waits for all of these futures, of which at most `at_once` run at a time and at least one. The next one begins when one
/// has ended. Returns what they return, in their order.
///
/// # Errors
/// The first error; the futures that still run are dropped.
pub(super) async fn in_order<T, E>(futures: Vec<OneOfMany<'_, T, E>>, at_once: usize) -> Result<Vec<T>, E> {
    let mut waiting = futures.into_iter();
    let mut running: Vec<(usize, OneOfMany<'_, T, E>)> = Vec::new();
    let mut ended: Vec<Option<T>> = Vec::new();
    poll_fn(|context| {
        loop {
            while running.len() < at_once.max(1)
                && let Some(future) = waiting.next()
            {
                running.push((ended.len(), future));
                ended.push(None);
            }
            let before = running.len();
            let mut at = 0;
            while let Some((place, future)) = running.get_mut(at) {
                match future.as_mut().poll(context) {
                    Poll::Ready(Ok(value)) => {
                        ended[*place] = Some(value);
                        drop(running.remove(at));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => at += 1,
                }
            }
            match running.len() {
                0 if before == 0 => return Poll::Ready(Ok(())),
                still if still == before => return Poll::Pending,
                _ => {}
            }
        }
    })
    .await?;
    Ok(ended.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    use super::*;

    /// Runs futures of which the later ones end first; returns what they return, and how many ran at the same time.
    async fn run(count: u64, at_once: usize, fails_at: Option<u64>) -> (Result<Vec<u64>, u64>, usize) {
        let (now, most) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
        let one = |number: u64| -> OneOfMany<'_, u64, u64> {
            Box::pin(async move {
                most.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
                tokio::time::sleep(Duration::from_millis(count - number)).await;
                now.fetch_sub(1, Relaxed);
                if fails_at == Some(number) { Err(number) } else { Ok(number) }
            })
        };
        (in_order((0..count).map(one).collect(), at_once).await, most.load(Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn the_order_stays_and_no_more_run_than_are_allowed() {
        for (count, at_once, most) in [(0, 3, 0), (1, 3, 1), (7, 3, 3), (7, 0, 1), (3, 9, 3)] {
            assert_eq!(run(count, at_once, None).await, (Ok((0..count).collect()), most), "{count} {at_once}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_error_ends_the_others() {
        assert_eq!(run(7, 3, Some(4)).await.0, Err(4));
    }
}
