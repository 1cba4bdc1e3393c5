//! The engine over real sockets, with whole tiny models in real files.

#![allow(clippy::unwrap_used)]

mod models;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use nearfar_domain::chat::{Chat, Params};
use nearfar_domain::embed::{Input, Inputs};
use nearfar_domain::events::{Event, FailureKind, FinishReason};
use nearfar_domain::frames::{
    EngineJob, EngineState, FromEngine, ModelSource, Reader, Terms, Timings, ToEngine, Tuning,
    VERSION, encode,
};
use nearfar_domain::ids::JobId;
use nearfar_domain::privacy::{Classified, Say, Source, Zone, classify};

mod drafted;
mod pinned;
mod sharing;

use super::*;
use crate::embed::tiny_encoder as encoder;
use crate::tiny::{ask, chain, random};

/// Far more than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A serving engine and the folder of its models.
struct Engine {
    links: Option<Sender<UnixStream>>,
    thread: Option<thread::JoinHandle<std::io::Result<()>>>,
    folder: tempfile::TempDir,
}

impl Engine {
    fn start() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let (links, receiver) = channel();
        let options = Options {
            threads: Some(2),
            ..options
        };
        let thread = thread::spawn(move || serve(receiver, options));
        Self {
            links: Some(links),
            thread: Some(thread),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn link(&self) -> Gate {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        self.links.as_ref().unwrap().send(theirs).unwrap();
        let mut gate = Gate {
            stream: ours,
            reader: Reader::default(),
            states: VecDeque::new(),
        };
        let FromEngine::Hello { version, pid } = gate.next() else {
            panic!("not a hello")
        };
        assert_eq!((version, pid), (VERSION, std::process::id()));
        gate
    }

    fn model(&self, name: &str, bytes: &[u8]) -> ModelSource {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        ModelSource::File {
            path: path.to_str().unwrap().to_owned(),
            tokenizer: None,
            sha256: None,
            tuning: Tuning::default(),
        }
    }

    /// Closes the links' channel and waits for the engine to end.
    fn stop(mut self) {
        self.links.take();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

/// The gate's end of a link.
struct Gate {
    stream: UnixStream,
    reader: Reader,
    states: VecDeque<EngineState>,
}

/// A job's events in order, and its times.
struct Whole {
    events: Vec<Event>,
    timings: Timings,
}

impl Whole {
    fn text(&self) -> String {
        let texts = self.events.iter().filter_map(|event| match event {
            Event::Content(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    fn failure(&self) -> FailureKind {
        match self.events.last() {
            Some(Event::Failed(failure)) => failure.kind,
            _ => panic!("it did not fail"),
        }
    }
}

impl Gate {
    fn send(&mut self, frame: &ToEngine) {
        self.stream.write_all(&encode(frame).unwrap()).unwrap();
    }

    fn run(&mut self, job: u64, source: &ModelSource, chat: Chat) {
        self.run_on(job, source, chat, Terms::default());
    }

    fn run_on(&mut self, job: u64, source: &ModelSource, chat: Chat, terms: Terms) {
        let say = Say {
            source: Source::Tag,
            zone: Zone::Device,
        };
        let Classified::Confined(confined) = classify(chat, &[say]) else {
            panic!("confined")
        };
        let job = EngineJob::confined(JobId(job), "tiny", source.clone(), &confined);
        self.send(&ToEngine::Run(Box::new(job.on(terms))));
    }

    /// The next frame; states are put aside.
    fn next(&mut self) -> FromEngine {
        loop {
            match self.reader.next_message().unwrap() {
                Some(FromEngine::State(state)) => self.states.push_back(state),
                Some(frame) => return frame,
                None => self.read(),
            }
        }
    }

    fn state(&mut self) -> EngineState {
        loop {
            if let Some(state) = self.states.pop_front() {
                return state;
            }
            match self.reader.next_message().unwrap() {
                Some(FromEngine::State(state)) => return state,
                Some(_) => {}
                None => self.read(),
            }
        }
    }

    fn state_where(&mut self, wanted: impl Fn(&EngineState) -> bool) -> EngineState {
        loop {
            let state = self.state();
            if wanted(&state) {
                return state;
            }
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        let count = self.stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the engine closed the link");
        self.reader.push(&buffer[..count]);
    }

    /// Everything of one job until its end; frames of other jobs are dropped.
    fn whole(&mut self, wanted: u64) -> Whole {
        let mut events = Vec::new();
        loop {
            match self.next() {
                FromEngine::Event { job, event } if job == JobId(wanted) => events.push(event),
                FromEngine::Done { job, timings } if job == JobId(wanted) => {
                    assert!(
                        events.last().is_some_and(Event::is_last),
                        "done comes after the last event"
                    );
                    return Whole { events, timings };
                }
                _ => {}
            }
        }
    }

    fn wait_for_content(&mut self, wanted: u64) {
        loop {
            if let FromEngine::Event {
                job,
                event: Event::Content(_),
            } = self.next()
                && job == JobId(wanted)
            {
                return;
            }
        }
    }
}

fn endless() -> Vec<u8> {
    chain(b'\n', &[b"la ", b"li "], true)
}

#[test]
fn an_answer_crosses_the_link_whole() {
    let engine = Engine::start();
    let source = engine.model("hello", &chain(b'\n', &[b"Hel", b"lo."], false));
    let mut gate = engine.link();
    gate.run(1, &source, ask("hi"));
    let FromEngine::Loaded { model, result } = gate.next() else {
        panic!("loaded first")
    };
    let loaded = result.unwrap();
    assert_eq!(
        (
            model.as_str(),
            loaded.name.as_str(),
            loaded.architecture.as_str()
        ),
        ("tiny", "tiny", "qwen3")
    );
    assert!(loaded.tools && loaded.context_tokens == 512 && loaded.memory_bytes > 0);
    let whole = gate.whole(1);
    assert!(matches!(&whole.events[0], Event::Started { model } if model == "tiny"));
    assert_eq!(whole.text(), "Hello.");
    assert!(matches!(
        whole.events.last(),
        Some(Event::Finished {
            reason: FinishReason::Stop,
            ..
        })
    ));
    assert!(whole.timings.load_ms > 0.0 && whole.timings.prefill_ms > 0.0);
    assert_eq!(whole.timings.decode_tokens, 2);
    // A second one finds the model there, and the prompt's beginning.
    gate.run(2, &source, ask("hi"));
    let whole = gate.whole(2);
    assert_eq!(
        (whole.text().as_str(), whole.timings.load_ms),
        ("Hello.", 0.0)
    );
    assert_eq!(whole.timings.prefill_tokens, 1);
    drop(gate);
    engine.stop();
}

#[test]
fn a_cancelled_job_ends_and_the_next_one_works() {
    let engine = Engine::start();
    let source = engine.model("endless", &endless());
    let mut gate = engine.link();
    gate.run(1, &source, ask("hi"));
    gate.wait_for_content(1);
    gate.send(&ToEngine::Cancel(JobId(1)));
    assert_eq!(gate.whole(1).failure(), FailureKind::Cancelled);
    // One that has ended, or never was, is no matter.
    gate.send(&ToEngine::Cancel(JobId(1)));
    gate.send(&ToEngine::Cancel(JobId(9)));
    gate.run(
        2,
        &source,
        Chat {
            params: Params {
                max_tokens: Some(2),
                ..Params::default()
            },
            ..ask("hi")
        },
    );
    assert_eq!(gate.whole(2).text(), "la li ");
}

#[test]
fn a_long_answer_does_not_hold_up_a_short_one() {
    let engine = Engine::start();
    let source = engine.model("endless", &endless());
    let mut gate = engine.link();
    gate.run(1, &source, ask("hi"));
    gate.wait_for_content(1);
    gate.run(
        2,
        &source,
        Chat {
            params: Params {
                max_tokens: Some(3),
                ..Params::default()
            },
            ..ask("hi")
        },
    );
    let mut long = 0;
    loop {
        match gate.next() {
            FromEngine::Event {
                job: JobId(1),
                event,
            } => {
                assert!(!event.is_last(), "the long one ended first");
                long += 1;
            }
            FromEngine::Done { job: JobId(2), .. } => break,
            _ => {}
        }
    }
    assert!(long >= 2, "both moved on: {long}");
    assert!(matches!(
        gate.whole(1).events.last(),
        Some(Event::Finished {
            reason: FinishReason::Length,
            ..
        })
    ));
}

#[test]
fn a_gate_that_died_frees_its_places() {
    let engine = Engine::start();
    let source = engine.model("endless", &endless());
    let mut first = engine.link();
    for job in 0..18 {
        first.run(job, &source, ask("hi"));
    }
    let mut second = engine.link();
    second.state_where(|state| state.running == 16 && state.queued == 2);
    drop(first);
    second.state_where(|state| state.running == 0 && state.queued == 0);
    second.run(
        0,
        &source,
        Chat {
            params: Params {
                max_tokens: Some(1),
                ..Params::default()
            },
            ..ask("hi")
        },
    );
    assert_eq!(second.whole(0).text(), "la ");
}

#[test]
fn a_full_queue_is_told_with_the_wait() {
    let engine = Engine::start();
    let source = engine.model("slow", &endless());
    // A gate that does not read keeps its answers from ending.
    let mut stuck = engine.link();
    let mut gate = engine.link();
    for job in 0..16 {
        stuck.run(job, &source, ask("hi"));
    }
    gate.state_where(|state| state.running == 16);
    for job in 0..65 {
        gate.run(job, &source, ask("hi"));
    }
    // Whether or not places became free meanwhile, more jobs than may wait and
    // run at one time were sent faster than answers of 500 tokens end.
    let mut refused = None;
    while refused.is_none() {
        if let FromEngine::Event {
            event: Event::Failed(failure),
            ..
        } = gate.next()
        {
            refused = Some(failure);
        }
    }
    let failure = refused.unwrap();
    assert_eq!(failure.kind, FailureKind::Overloaded);
    assert!(
        failure.retry_after_ms.is_some_and(|wait| wait > 0),
        "{}",
        failure.message
    );
}

#[test]
fn a_gate_that_does_not_read_stops_nobody_else() {
    let engine = Engine::start();
    let source = engine.model("endless", &endless());
    let mut slow = engine.link();
    // Log-probabilities make an answer's frames overflow every buffer.
    let params = Params {
        logprobs: Some(20),
        ..Params::default()
    };
    for job in 0..3 {
        slow.run(
            job,
            &source,
            Chat {
                params: params.clone(),
                ..ask("hi")
            },
        );
    }
    let mut gate = engine.link();
    for job in 0..5 {
        gate.run(job, &source, ask("hi"));
        assert!(matches!(
            gate.whole(job).events.last(),
            Some(Event::Finished { .. })
        ));
    }
    // Nothing was lost meanwhile.
    let mut contents = [0; 3];
    let mut done = 0;
    while done < 3 {
        match slow.next() {
            FromEngine::Event {
                job,
                event: Event::Content(_),
            } => contents[job.0 as usize] += 1,
            FromEngine::Done { .. } => done += 1,
            _ => {}
        }
    }
    assert!(
        contents[0] > 400 && contents.iter().all(|count| *count == contents[0]),
        "{contents:?}"
    );
}

#[test]
fn a_model_that_cannot_be_had_is_told_and_nothing_else_breaks() {
    let engine = Engine::start();
    let good = engine.model("good", &chain(b'\n', &[b"ok"], false));
    let broken = engine.model("broken", b"GGUF but not really");
    let missing = ModelSource::File {
        path: engine
            .folder
            .path()
            .join("none")
            .to_str()
            .unwrap()
            .to_owned(),
        tokenizer: None,
        sha256: None,
        tuning: Tuning::default(),
    };
    let mut gate = engine.link();
    gate.run(1, &missing, ask("hi"));
    let whole = gate.whole(1);
    assert_eq!(whole.failure(), FailureKind::ModelMissing);
    let FromEngine::Loaded {
        result: Err(reason),
        ..
    } = gate.next()
    else {
        panic!("told to all")
    };
    assert!(reason.contains("cannot read"), "{reason}");
    gate.run(2, &broken, ask("hi"));
    assert_eq!(gate.whole(2).failure(), FailureKind::ModelBroken);
    gate.run(3, &good, ask(&"too long ".repeat(500)));
    assert_eq!(gate.whole(3).failure(), FailureKind::ContextLength);
    gate.run(4, &good, ask("hi"));
    assert_eq!(gate.whole(4).text(), "ok");
}

#[test]
fn pings_and_models_are_answered_while_busy() {
    let engine = Engine::start();
    let source = engine.model("endless", &endless());
    let other = engine.model("other", &random(4));
    let mut gate = engine.link();
    gate.run(1, &source, ask("hi"));
    gate.wait_for_content(1);
    gate.send(&ToEngine::Ping(77));
    gate.send(&ToEngine::Load {
        model: "other".into(),
        source: other.clone(),
    });
    let (mut pong, mut loaded) = (false, false);
    while !(pong && loaded) {
        match gate.next() {
            FromEngine::Pong(number) => pong = number == 77,
            FromEngine::Loaded { model, result } if model == "other" => loaded = result.is_ok(),
            _ => {}
        }
    }
    gate.states.clear();
    gate.state_where(|state| state.models.len() == 2);
    // One in use stays until its job ends; one that is not goes at once.
    gate.send(&ToEngine::Unload {
        model: "other".into(),
    });
    gate.send(&ToEngine::Unload {
        model: "tiny".into(),
    });
    gate.send(&ToEngine::Cancel(JobId(1)));
    gate.state_where(|state| state.models.is_empty());
}

#[test]
fn garbage_closes_its_link_alone() {
    let engine = Engine::start();
    let source = engine.model("good", &chain(b'\n', &[b"ok"], false));
    let mut bad = engine.link();
    let mut gate = engine.link();
    bad.stream.write_all(&[0xff; 64]).unwrap();
    let mut rest = Vec::new();
    bad.stream.read_to_end(&mut rest).unwrap();
    gate.run(1, &source, ask("hi"));
    assert_eq!(gate.whole(1).text(), "ok");
    drop((bad, gate));
    engine.stop();
}

/// A request for the vectors of as many inputs.
fn vectors_of(count: usize) -> Chat {
    Chat::inputs(Inputs {
        items: vec![Input::Tokens(vec![4; 100]); count],
        dimensions: None,
        purpose: None,
    })
}

fn made(whole: &Whole) -> usize {
    let count = |event: &Event| match event {
        Event::Vectors(vectors) => vectors.len(),
        _ => 0,
    };
    whole.events.iter().map(count).sum()
}

#[test]
fn vectors_are_made_beside_an_answer_in_words() {
    let engine = Engine::start();
    let words = engine.model("endless", &endless());
    let source = engine.model("encoder", &encoder());
    let mut gate = engine.link();
    gate.run(1, &words, ask("hi"));
    gate.wait_for_content(1);
    gate.run(2, &source, vectors_of(12));
    let whole = gate.whole(2);
    assert_eq!(made(&whole), 12);
    assert!(matches!(whole.events[0], Event::Started { .. }));
    let Some(Event::Finished { usage, .. }) = whole.events.last() else {
        panic!("{:?}", whole.events)
    };
    assert_eq!(usage.prompt, Some(1_200));
    assert_eq!(whole.timings.prefill_tokens, 1_200);
    gate.send(&ToEngine::Cancel(JobId(1)));
    gate.run(3, &source, vectors_of(1));
    assert_eq!(made(&gate.whole(3)), 1);
    // The wrong kind of model is said to be one.
    gate.run(4, &words, vectors_of(1));
    assert_eq!(gate.whole(4).failure(), FailureKind::Unsupported);
    gate.run(5, &source, ask("hi"));
    assert_eq!(gate.whole(5).failure(), FailureKind::Unsupported);
}

#[test]
fn requests_for_vectors_can_be_cancelled_anywhere_and_lose_no_place() {
    let engine = Engine::start();
    let source = engine.model("encoder", &encoder());
    let mut gate = engine.link();
    for round in 0..6 {
        let job = 10 * round;
        gate.run(job, &source, vectors_of(400));
        gate.run(job + 1, &source, vectors_of(1));
        // One that runs or waits for its model, and one that waits.
        gate.send(&ToEngine::Cancel(JobId(job + 1)));
        gate.send(&ToEngine::Cancel(JobId(job)));
        assert_eq!(gate.whole(job + 1).failure(), FailureKind::Cancelled);
        gate.run(job + 2, &source, vectors_of(2));
        assert_eq!(made(&gate.whole(job + 2)), 2);
    }
    // A gate that dies leaves the place to the next one.
    gate.run(100, &source, vectors_of(2_000));
    drop(gate);
    let mut gate = engine.link();
    gate.run(1, &source, vectors_of(3));
    assert_eq!(made(&gate.whole(1)), 3);
    drop(gate);
    engine.stop();
}
