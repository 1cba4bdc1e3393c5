//! Runs many short requests through the engine over its real link, a third of
//! them cancelled at any moment, then loads and unloads the model many times,
//! and prints what the process holds before and after.
//!
//! `cargo run --release -p nearfar-engine --example soak -- [FILE] [--requests 10000] [--loads 200] [--threads N]`
//!
//! Without a file it is the model that ships inside the binary, in so little
//! memory that kept prompts give way all the time. Exits with 1 when a request
//! ends never or twice, when a place is not given back, when keys and values or
//! pinned prompts on disk pass their bounds, or when resident memory grew by
//! more than a tenth and 16 MiB after the first tenth of the work.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nearfar_domain::chat::{Chat, Message, Params, Role};
use nearfar_domain::events::Event;
use nearfar_domain::frames::{
    EngineJob, EngineState, FromEngine, ModelSource, Priority, Purpose, Reader, Terms, ToEngine,
    Tuning, encode,
};
use nearfar_domain::ids::JobId;
use nearfar_domain::privacy::{Classified, Say, Source, Zone, classify};
use nearfar_engine::{Options, PinnedOnDisk, serve};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Requests under way at once: more than there are places.
const AT_ONCE: usize = 24;
/// What pinned prompts may take on disk, in bytes.
const MAX_DISK: u64 = 4 << 20;
/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    let (mut requests, mut loads, mut threads) = (10_000, 200, None);
    let mut source = ModelSource::Embedded;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<usize> {
            let value = arguments.next();
            Ok(value.ok_or(format!("{argument} needs a number"))?.parse()?)
        };
        match argument.as_str() {
            "--requests" => requests = number()?,
            "--loads" => loads = number()?,
            "--threads" => threads = Some(number()?),
            path => {
                source = ModelSource::File {
                    path: path.to_owned(),
                    tokenizer: None,
                    sha256: None,
                    tuning: Tuning::default(),
                }
            }
        }
    }
    let (links, receiver) = channel();
    let disk = tempfile::tempdir()?;
    let options = Options {
        threads,
        memory_budget: (source == ModelSource::Embedded).then_some(96 << 20),
        pinned: Some(PinnedOnDisk {
            folder: disk.path().to_owned(),
            max_bytes: MAX_DISK,
        }),
        ..Options::default()
    };
    let engine = std::thread::spawn(move || serve(receiver, options));
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(PATIENCE))?;
    links.send(theirs)?;
    drop(links);
    let mut gate = Gate {
        stream: ours,
        reader: Reader::default(),
        source,
        next: Random(7),
        disk: disk.path().to_owned(),
        state: EngineState::default(),
        pings: 0,
    };
    println!(
        "{:<22} {:>10} {:>10} {:>12} {:>10} {:>9}",
        "after", "RSS MiB", "KV MiB", "places used", "disk MiB", "seconds"
    );
    let begun = Instant::now();
    gate.load()?;
    gate.requests(0, AT_ONCE as u64)?;
    gate.report("the model's load", begun)?;
    let (mut counts, mut early, mut late) = (Counts::default(), 0.0, 0.0);
    let tenth = (requests / 10).max(1);
    for part in 0..requests.div_ceil(tenth) {
        let from = part * tenth;
        let count = tenth.min(requests - from);
        counts.add(gate.requests(1_000 + from as u64, count as u64)?);
        late = gate.report(&format!("{} requests", from + count), begun)?;
        if part == 0 {
            early = late;
        }
    }
    println!(
        "{} answered, {} cancelled",
        counts.answered, counts.cancelled
    );
    let mut flat = grew_little(early, late);
    gate.unload()?;
    let tenth = (loads / 10).max(1);
    for load in 0..loads {
        gate.load()?;
        // Some of them while an answer is being made.
        gate.requests(1_000_000 + load as u64, u64::from(load % 4 == 0))?;
        gate.unload()?;
        if (load + 1) % tenth == 0 || load + 1 == loads {
            late = gate.report(&format!("{} loads, unloads", load + 1), begun)?;
            if load + 1 == tenth {
                early = late;
            }
        }
    }
    flat &= grew_little(early, late);
    drop(gate);
    engine
        .join()
        .map_err(|_| "the engine ended by a mistake")??;
    if !flat {
        return Err("resident memory grew".into());
    }
    println!("flat, and every place and block came back");
    Ok(())
}

fn grew_little(early: f64, late: f64) -> bool {
    late <= early * 1.1 + 16.0
}

#[derive(Default)]
struct Counts {
    answered: u64,
    cancelled: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.cancelled += other.cancelled;
    }
}

/// Knuth's linear congruential generator.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The gate's end of a link.
struct Gate {
    stream: UnixStream,
    reader: Reader,
    source: ModelSource,
    next: Random,
    /// Where pinned prompts lie.
    disk: PathBuf,
    /// What was told last.
    state: EngineState,
    pings: u64,
}

const MODEL: &str = "soaked";

impl Gate {
    /// Makes so many requests, cancels a third of them, and waits for the end
    /// of each.
    fn requests(&mut self, first: u64, count: u64) -> Result<Counts> {
        let (mut begun, mut open, mut counts) = (0, BTreeSet::new(), Counts::default());
        while counts.answered + counts.cancelled < count {
            while begun < count && open.len() < AT_ONCE {
                self.ask(first + begun)?;
                open.insert(first + begun);
                begun += 1;
            }
            if self.next.below(3) == 0 {
                let victim = self.next.below(AT_ONCE as u64) as usize;
                if let Some(victim) = open.iter().nth(victim) {
                    self.send(&ToEngine::Cancel(JobId(*victim)))?;
                }
            }
            let mut failed = BTreeSet::new();
            loop {
                match self.receive()? {
                    FromEngine::Event {
                        job,
                        event: Event::Failed(failure),
                    } => {
                        if failure.kind != nearfar_domain::events::FailureKind::Cancelled {
                            return Err(format!("a request failed: {}", failure.message).into());
                        }
                        failed.insert(job);
                    }
                    FromEngine::Done { job, .. } => {
                        if !open.remove(&job.0) {
                            return Err("a request ended twice".into());
                        }
                        match failed.contains(&job) {
                            true => counts.cancelled += 1,
                            false => counts.answered += 1,
                        }
                        break;
                    }
                    _ => {}
                }
            }
        }
        Ok(counts)
    }

    fn ask(&mut self, job: u64) -> Result<()> {
        let next = &mut self.next;
        let words = 4 + next.below(60);
        let text: Vec<String> = (0..words).map(|_| format!("w{}", next.below(40))).collect();
        let chat = Chat {
            params: Params {
                max_tokens: Some(1 + next.below(12) as u32),
                ..Params::default()
            },
            ..Chat::turns(vec![Message::text(Role::User, text.join(" "))])
        };
        let terms = Terms {
            priority: match next.below(2) {
                0 => Priority::Interactive,
                _ => Priority::Batch,
            },
            share: format!("tenant {}", next.below(3)),
            purpose: match next.below(10) {
                0 => Purpose::Prefill { pin: true },
                1 => Purpose::Prefill { pin: false },
                _ => Purpose::Answer,
            },
            ..Terms::default()
        };
        let device = Say {
            source: Source::Tag,
            zone: Zone::Device,
        };
        let Classified::Confined(confined) = classify(chat, &[device]) else {
            return Err("a request for this device is confined".into());
        };
        let job = EngineJob::confined(JobId(job), MODEL, self.source.clone(), &confined).on(terms);
        self.send(&ToEngine::Run(Box::new(job)))
    }

    fn load(&mut self) -> Result<()> {
        self.send(&ToEngine::Load {
            model: MODEL.to_owned(),
            source: self.source.clone(),
        })?;
        loop {
            if let FromEngine::Loaded { result, .. } = self.receive()? {
                result?;
                return Ok(());
            }
        }
    }

    fn unload(&mut self) -> Result<()> {
        self.send(&ToEngine::Unload {
            model: MODEL.to_owned(),
        })?;
        self.idle(|state| state.models.is_empty()).map(drop)
    }

    /// Waits for a state in which nothing runs.
    fn idle(&mut self, also: impl Fn(&EngineState) -> bool) -> Result<EngineState> {
        // The state is told when it changes: what was told last holds once a
        // ping came back that was sent after the last end.
        self.pings += 1;
        let ping = self.pings;
        self.send(&ToEngine::Ping(ping))?;
        let mut answered = false;
        loop {
            let state = &self.state;
            if answered && state.running == 0 && state.queued == 0 && also(state) {
                return Ok(state.clone());
            }
            if let FromEngine::Pong(number) = self.receive()? {
                answered |= number == ping;
            }
        }
    }

    /// Prints what is held, and returns resident memory in MiB.
    fn report(&mut self, after: &str, begun: Instant) -> Result<f64> {
        // Whatever was told before is old: one more request makes it new, and
        // shows that there is a place for it.
        let state = match after.contains("unload") {
            true => EngineState::default(),
            false => {
                self.requests(2_000_000, 1)?;
                self.idle(|state| !state.models.is_empty())?
            }
        };
        let kv: u64 = state.loads.iter().map(|load| load.kv_bytes).sum();
        let budget: u64 = state.loads.iter().map(|load| load.kv_budget_bytes).sum();
        if kv > budget {
            return Err(format!("{kv} bytes of keys and values, of {budget}").into());
        }
        let disk = self.on_disk()?;
        if disk > MAX_DISK {
            return Err(format!("{disk} bytes on disk, of {MAX_DISK}").into());
        }
        let rss = resident()?;
        println!(
            "{after:<22} {rss:>10.1} {:>10.1} {:>12} {:>10.1} {:>9.0}",
            kv as f64 / 1048576.0,
            state.running,
            disk as f64 / 1048576.0,
            begun.elapsed().as_secs_f64()
        );
        Ok(rss)
    }

    fn on_disk(&self) -> Result<u64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(&self.disk)? {
            // One that is replaced meanwhile counts as nothing.
            bytes += entry?.metadata().map_or(0, |about| about.len());
        }
        Ok(bytes)
    }

    fn send(&mut self, frame: &ToEngine) -> Result<()> {
        Ok(self.stream.write_all(&encode(frame)?)?)
    }

    fn receive(&mut self) -> Result<FromEngine> {
        let mut buffer = [0; 1 << 16];
        loop {
            if let Some(frame) = self.reader.next_message()? {
                if let FromEngine::State(state) = &frame {
                    self.state = state.clone();
                }
                return Ok(frame);
            }
            match self.stream.read(&mut buffer)? {
                0 => return Err("the engine closed the link".into()),
                count => self.reader.push(&buffer[..count]),
            }
        }
    }
}

fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.ok_or("no VmRSS")?.parse::<f64>()? / 1024.0)
}
