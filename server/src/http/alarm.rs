//! A future that waits beside a busy one in the same task, and is looked at only once something it waits for has happened.
//!
//! A connection at work is polled several times a request. What else may end it (a timer, the shutdown) is asked about each time
//! without this, and each asks under a lock.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// See the module. It must be polled by one task only.
#[derive(Debug)]
pub(super) struct Alarmed<F> {
    future: F,
    alarm: Arc<Alarm>,
    waker: Waker,
}

#[derive(Debug)]
struct Alarm {
    /// Something has happened since the future was last looked at.
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let task = task.clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<F: Future + Unpin> Alarmed<F> {
    pub(super) fn new(future: F) -> Self {
        let alarm = Arc::new(Alarm {
            // The first look is what makes it wait for anything.
            rung: AtomicBool::new(true),
            task: Mutex::default(),
        });
        Alarmed {
            future,
            waker: Waker::from(Arc::clone(&alarm)),
            alarm,
        }
    }
}

impl<F: Future + Unpin> Future for Alarmed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if !self.alarm.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        {
            let mut task = self
                .alarm
                .task
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *task = Some(cx.waker().clone());
        }
        let Alarmed { future, waker, .. } = &mut *self;
        Pin::new(future).poll(&mut Context::from_waker(waker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::time::Duration;
    use tokio::sync::oneshot;
    use tokio::time::{sleep, timeout};

    #[tokio::test(start_paused = true)]
    async fn it_is_looked_at_when_something_has_happened_and_no_sooner() {
        let mut looks = 0;
        let (ring, rung) = oneshot::channel();
        let mut rung = pin!(rung);
        let mut alarmed = Alarmed::new(Box::pin(poll_fn(|cx| {
            looks += 1;
            rung.as_mut().poll(cx)
        })));
        // The task is woken by something else, again and again.
        let busy = async {
            let mut busy = pin!(async {
                for _ in 0..100 {
                    sleep(Duration::from_millis(1)).await;
                }
            });
            poll_fn(|cx| {
                assert!(Pin::new(&mut alarmed).poll(cx).is_pending());
                busy.as_mut().poll(cx)
            })
            .await;
        };
        busy.await;
        ring.send(7).unwrap();
        let value = timeout(Duration::from_secs(1), &mut alarmed).await;
        assert_eq!(value.unwrap(), Ok(7));
        drop(alarmed);
        assert_eq!(looks, 2);
    }

    /// What happens while the future is being looked at is not missed.
    #[tokio::test]
    async fn it_may_ring_at_once() {
        let mut left = 5;
        let alarmed = Alarmed::new(Box::pin(poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })));
        timeout(Duration::from_secs(5), alarmed).await.unwrap();
    }
}
