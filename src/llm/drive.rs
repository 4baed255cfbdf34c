//! Many dialogues at once on one thread: who is polled when, and when the models compute.

use std::collections::{BTreeSet, HashMap};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;

use super::ChatModel;

/// How often a run that waits for the network looks whether it should stop.
const LOOK: Duration = Duration::from_millis(50);

/// The error of a drive that was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped before every dialogue was done")]
pub struct Interrupted;

/// Runs jobs, at most `width` at a time, and has the models answer whenever no job can go on by itself.
///
/// Jobs start in the order of the iterator, which is asked for the next one only when there is room. Those that can go on are
/// polled in that order too. Only when none can does every model, in the order given, answer what is queued with it; so for
/// models that compute here the composition of each batch depends on the jobs alone, never on timing. When nothing is queued
/// either, the thread waits for the network. A width of 0 counts as 1.
///
/// `on_done` receives each result with the job's place in the iterator, in the order in which jobs end, which is not that of
/// the iterator. It is to be awaited on a current-thread runtime.
pub async fn drive<F: Future>(
    models: &[&dyn ChatModel],
    width: usize,
    jobs: impl Iterator<Item = F>,
    on_done: impl FnMut(usize, F::Output),
) {
    let ready = Arc::new(Ready::default());
    let outer = ready.outer.clone();
    let mut crew = Crew { width: width.max(1), jobs: jobs.enumerate().fuse(), running: HashMap::new(), ready, on_done };
    let mut looked_outside = false;
    // Without this, tokio makes channels and sockets look busy after 128 of them went on in one turn.
    tokio::task::unconstrained(poll_fn(|context| {
        outer.register(context.waker());
        if crew.turn() {
            looked_outside = false;
        } else if crew.running.is_empty() {
            return Poll::Ready(());
        } else if looked_outside {
            looked_outside = false;
            if models.iter().map(|model| model.answer_waiting()).sum::<usize>() == 0 {
                return Poll::Pending;
            }
        } else {
            looked_outside = true;
        }
        // Back through the runtime, so that answers from the network that are already here get in before the models compute.
        context.waker().wake_by_ref();
        Poll::Pending
    }))
    .await;
}

/// [`drive`] from a thread without a runtime, until all is done or `stop` is set.
///
/// # Errors
/// [`Interrupted`] when `stop` was set; the jobs then running are dropped. It is looked at before each turn and every 50 ms.
///
/// # Panics
/// When called inside a runtime, or when the system grants no sockets for one.
pub fn drive_here<F: Future>(
    models: &[&dyn ChatModel],
    width: usize,
    jobs: impl Iterator<Item = F>,
    on_done: impl FnMut(usize, F::Output),
    stop: &AtomicBool,
) -> Result<(), Interrupted> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime for the dialogues");
    runtime.block_on(async {
        let mut driving = pin!(drive(models, width, jobs, on_done));
        let mut clock = tokio::time::interval(LOOK);
        let mut clock = pin!(poll_fn(move |context| {
            while clock.poll_tick(context).is_ready() {
                if stop.load(Ordering::Relaxed) {
                    return Poll::Ready(());
                }
            }
            Poll::<()>::Pending
        }));
        poll_fn(|context| {
            if stop.load(Ordering::Relaxed) || clock.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(Interrupted));
            }
            driving.as_mut().poll(context).map(Ok)
        })
        .await
    })
}

/// The places of the jobs that can go on. Whoever wakes a job may do so from another thread.
#[derive(Default)]
struct Ready {
    places: Mutex<BTreeSet<usize>>,
    outer: Arc<AtomicWaker>,
}

impl Ready {
    fn put(&self, place: usize) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).insert(place);
    }

    /// Takes out the first place from the given one on.
    fn take(&self, from: usize) -> Option<usize> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let first = places.range(from..).next().copied()?;
        places.remove(&first);
        Some(first)
    }
}

/// Says that one job can go on, and has the drive look at it.
struct Bell {
    place: usize,
    ready: Arc<Ready>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.put(self.place);
        self.ready.outer.wake();
    }
}

struct Running<F> {
    job: Pin<Box<F>>,
    waker: Waker,
}

struct Crew<F, I: Iterator, D> {
    width: usize,
    jobs: std::iter::Fuse<std::iter::Enumerate<I>>,
    /// By their places in the iterator.
    running: HashMap<usize, Running<F>>,
    ready: Arc<Ready>,
    on_done: D,
}

impl<F: Future, I: Iterator<Item = F>, D: FnMut(usize, F::Output)> Crew<F, I, D> {
    /// Fills up and polls once every job that can go on, in the order of their places; whether there was any. The work is in
    /// proportion to these jobs, however many others wait. A job that is woken after its place was passed goes on in the next
    /// turn.
    fn turn(&mut self) -> bool {
        let room = self.width - self.running.len();
        for (place, job) in self.jobs.by_ref().take(room) {
            let waker = Waker::from(Arc::new(Bell { place, ready: self.ready.clone() }));
            self.running.insert(place, Running { job: Box::pin(job), waker });
            self.ready.put(place);
        }
        let (mut from, mut moved) = (0, false);
        while let Some(place) = self.ready.take(from) {
            from = place + 1;
            // One that has ended may still be woken by what it left behind.
            let Some(running) = self.running.get_mut(&place) else { continue };
            moved = true;
            if let Poll::Ready(result) = running.job.as_mut().poll(&mut Context::from_waker(&running.waker)) {
                self.running.remove(&place);
                (self.on_done)(place, result);
            }
        }
        moved
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::{Cell, RefCell};

    use futures_util::future::LocalBoxFuture;
    use proptest::prelude::*;
    use tokio::sync::oneshot;

    use super::*;
    use crate::chat::Message;
    use crate::llm::{ChatRequest, ModelError, Reply, Sampling};

    type Waiting = (u64, oneshot::Sender<Reply>);

    /// Answers with the place of the request in its batch, and keeps the seeds of every batch.
    #[derive(Default)]
    pub(in crate::llm) struct Queued {
        waiting: RefCell<Vec<Waiting>>,
        pub(in crate::llm) batches: RefCell<Vec<Vec<u64>>>,
    }

    impl ChatModel for Queued {
        fn complete(&self, request: ChatRequest) -> LocalBoxFuture<'_, Result<Reply, ModelError>> {
            Box::pin(async move {
                let (sender, receiver) = oneshot::channel();
                self.waiting.borrow_mut().push((request.seed, sender));
                receiver.await.map_err(|_| ModelError::Failed("dropped".to_owned()))
            })
        }

        fn answer_waiting(&self) -> usize {
            let batch = self.waiting.take();
            if batch.is_empty() {
                return 0;
            }
            let count = batch.len();
            self.batches.borrow_mut().push(batch.iter().map(|(seed, _)| *seed).collect());
            for (place, (_, sender)) in batch.into_iter().enumerate() {
                let _ = sender.send(Reply {
                    text: place.to_string(),
                    tool_calls: Vec::new(),
                    prompt_tokens: 1,
                    completion_tokens: 1,
                    cut_off: false,
                });
            }
            count
        }
    }

    fn request(seed: u64) -> ChatRequest {
        let sampling = Sampling { max_tokens: 8, ..Sampling::default() };
        ChatRequest { system: None, chat: [Message::user("hello")].into_iter().collect(), tools: None, sampling, seed }
    }

    /// A dialogue of so many turns.
    async fn dialogue(model: &dyn ChatModel, index: usize, turns: usize) -> String {
        let mut said = String::new();
        for _ in 0..turns {
            said += &model.complete(request(index as u64)).await.unwrap().text;
        }
        said
    }

    fn run(lengths: &[usize], width: usize) -> (Vec<Vec<u64>>, Vec<(usize, String)>) {
        let model = Queued::default();
        let mut done = Vec::new();
        let jobs = lengths.iter().enumerate().map(|(index, &turns)| dialogue(&model, index, turns));
        let stop = AtomicBool::new(false);
        drive_here(&[&model], width, jobs, |index, text| done.push((index, text)), &stop).unwrap();
        (model.batches.into_inner(), done)
    }

    #[test]
    fn batches_are_full() {
        let (batches, done) = run(&[2; 10], 4);
        let sizes: Vec<_> = batches.iter().map(Vec::len).collect();
        assert_eq!(sizes, [4, 4, 4, 4, 2, 2]);
        assert_eq!(batches[0], [0, 1, 2, 3]);
        assert_eq!(batches[2], [4, 5, 6, 7]);
        assert_eq!(done.len(), 10);
    }

    #[test]
    fn a_job_that_ends_makes_room_before_the_next_batch() {
        let (batches, _) = run(&[1, 3, 1, 1], 2);
        assert_eq!(batches, [vec![0, 1], vec![1, 2], vec![1, 3]]);
    }

    #[test]
    fn ten_thousand_jobs() {
        let lengths: Vec<_> = (0..10_000).map(|index| index % 4).collect();
        let (batches, mut done) = run(&lengths, 200);
        done.sort();
        assert!(
            done.iter()
                .enumerate()
                .all(|(place, (index, text))| place == *index && text.is_empty() == (index % 4 == 0))
        );
        assert_eq!(done.len(), 10_000);
        let requests: usize = batches.iter().map(Vec::len).sum();
        assert_eq!(requests, 15_000);
        assert!(batches.iter().all(|batch| batch.len() <= 200));
        // Only the end may leave room in a batch.
        assert!(batches.iter().rev().skip(3).all(|batch| batch.len() == 200), "{:?}", batches.len());
    }

    #[test]
    fn no_jobs_and_no_width() {
        assert_eq!(run(&[], 3).1, []);
        assert_eq!(run(&[1, 1], 0).0, [[0], [1]]);
    }

    #[test]
    fn dialogues_with_two_models_and_the_clock() {
        let (agent, user) = (Queued::default(), Queued::default());
        let models: [&dyn ChatModel; 2] = [&agent, &user];
        let (alive, most) = (Cell::new(0), Cell::new(0));
        let jobs = (0..30).map(|index| {
            let (agent, user, alive, most) = (&agent, &user, &alive, &most);
            async move {
                alive.set(alive.get() + 1);
                most.set(most.get().max(alive.get()));
                agent.complete(request(index)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(index % 7)).await;
                user.complete(request(index)).await.unwrap();
                tokio::task::yield_now().await;
                alive.set(alive.get() - 1);
                index
            }
        });
        let mut sum = 0;
        let stop = AtomicBool::new(false);
        drive_here(&models, 6, jobs, |place, index| sum += if place as u64 == index { index } else { 1_000 }, &stop)
            .unwrap();
        assert_eq!(sum, 29 * 15);
        assert_eq!(most.get(), 6);
        assert_eq!(user.batches.borrow().iter().flatten().count(), 30);
    }

    #[test]
    fn a_job_that_wakes_itself_does_not_starve_the_others() {
        let model = Queued::default();
        let jobs = (0..2).map(|index| {
            let model = &model;
            async move {
                if index == 0 {
                    let deadline = tokio::time::Instant::now() + Duration::from_millis(20);
                    let mut sleep = pin!(tokio::time::sleep_until(deadline));
                    // Busy waiting: rings its own bell whenever it is polled.
                    poll_fn(|context| {
                        context.waker().wake_by_ref();
                        sleep.as_mut().poll(context)
                    })
                    .await;
                } else {
                    model.complete(request(1)).await.unwrap();
                }
            }
        });
        let mut done = 0;
        drive_here(&[&model], 2, jobs, |_, ()| done += 1, &AtomicBool::new(false)).unwrap();
        assert_eq!(done, 2);
    }

    #[test]
    fn no_job_is_polled_that_cannot_go_on() {
        // A relay: each job waits for the one before it, so that one at a time can go on.
        let count = 20_000;
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (sender, receiver) = oneshot::channel::<()>();
            senders.push(Some(sender));
            receivers.push(receiver);
        }
        senders[0].take().unwrap().send(()).unwrap();
        senders.push(None);
        let polls = Cell::new(0_usize);
        let jobs = receivers.into_iter().zip(senders.into_iter().skip(1)).map(|(mut receiver, next)| {
            let polls = &polls;
            async move {
                poll_fn(|context| {
                    polls.set(polls.get() + 1);
                    Pin::new(&mut receiver).poll(context)
                })
                .await
                .unwrap();
                // Not at once: the next one is woken after its place was passed, or before it comes.
                tokio::task::yield_now().await;
                if let Some(next) = next {
                    next.send(()).unwrap();
                }
            }
        });
        let mut done = Vec::new();
        drive_here(&[], count, jobs, |place, _| done.push(place), &AtomicBool::new(false)).unwrap();
        assert_eq!(done, (0..count).collect::<Vec<_>>());
        assert!(polls.get() <= 2 * count, "{}", polls.get());
    }

    #[test]
    fn a_set_flag_ends_a_wait_for_the_network() {
        let stop = AtomicBool::new(false);
        let jobs = (0..3).map(|index| {
            let stop = &stop;
            async move {
                if index == 1 {
                    stop.store(true, Ordering::Relaxed);
                }
                std::future::pending::<()>().await;
            }
        });
        assert_eq!(drive_here(&[], 2, jobs, |_, ()| (), &stop), Err(Interrupted));
    }

    proptest! {
        #[test]
        fn batches_depend_on_the_jobs_alone(lengths in prop::collection::vec(0..5_usize, 0..40), width in 1..9_usize) {
            let (batches, done) = run(&lengths, width);
            prop_assert_eq!(&run(&lengths, width), &(batches.clone(), done));
            prop_assert!(batches.iter().all(|batch| batch.len() <= width && batch.is_sorted()));
            prop_assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), lengths.iter().sum::<usize>());
        }
    }
}
