//! What the kernels compute for a row depends on its own sequence alone.

use super::*;

/// Sizes that no vector, tile or block divides.
fn odd(family: &'static str) -> Tiny {
    Tiny {
        heads: 6,
        kv_heads: 2,
        inner: 160,
        vocab: 57,
        context: 2048,
        load_context: 2048,
        layers: 2,
        ..tiny::plain("odd", family)
    }
}

fn greedy(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(id, _)| id as u32)
}

/// Prompt and 20 greedy tokens, one sequence alone, in one piece.
fn alone(model: &Model, prompt: &[u32]) -> Vec<Vec<f32>> {
    let mut cache = model.new_cache();
    let mut rows = vec![model.forward(&mut cache, prompt).unwrap()];
    for _ in 0..20 {
        let next = greedy(rows.last().unwrap());
        rows.push(model.forward(&mut cache, &[next]).unwrap());
    }
    rows
}

fn prompts(vocab: usize) -> Vec<Vec<u32>> {
    let mut random = tiny::Random(5);
    [1usize, 7, 16, 33, 300]
        .iter()
        .map(|length| {
            (0..*length)
                .map(|_| (random.bits() % vocab as u64) as u32)
                .collect()
        })
        .collect()
}

/// Random steps: each sequence's next tokens, cut at random, in random company,
/// sometimes taken back and computed again, sometimes from a fork.
fn in_company(model: &Model, prompts: &[Vec<u32>], seed: u64) -> Vec<Vec<Vec<f32>>> {
    let mut random = tiny::Random(seed);
    let mut tokens = prompts.to_vec();
    let mut caches: Vec<Cache> = prompts.iter().map(|_| model.new_cache()).collect();
    let mut rows: Vec<Vec<Vec<f32>>> = prompts.iter().map(|_| Vec::new()).collect();
    while rows.iter().any(|rows| rows.len() < 21) {
        let mut chosen = Vec::new();
        for (index, cache) in caches.iter_mut().enumerate() {
            if rows[index].len() == 21 || random.bits().is_multiple_of(3) {
                continue;
            }
            match random.bits() % 8 {
                0 => cache.truncate(cache.len() - random.bits() as usize % (cache.len() + 1) / 4),
                1 => *cache = cache.fork(cache.len()),
                _ => {}
            }
            let left = tokens[index].len() - cache.len();
            let count = 1 + random.bits() as usize % left;
            chosen.push((index, count));
        }
        let mut parts = Vec::new();
        let mut each = caches.iter_mut().enumerate();
        for (index, count) in &chosen {
            let (_, cache) = each.find(|(at, _)| at == index).unwrap();
            let done = cache.len();
            let last = done + count == tokens[*index].len();
            parts.push(Part {
                tokens: &tokens[*index][done..done + count],
                logits: if last { Wanted::Last } else { Wanted::None },
                cache,
            });
        }
        let mut logits = model.step(&mut parts).unwrap().into_iter();
        let whole: Vec<bool> = parts
            .iter()
            .map(|part| part.logits == Wanted::Last)
            .collect();
        drop(parts);
        for ((index, _), _) in chosen.iter().zip(whole).filter(|(_, whole)| *whole) {
            let row = logits.next().unwrap();
            tokens[*index].push(greedy(&row));
            rows[*index].push(row);
        }
        assert!(logits.next().is_none());
    }
    rows
}

#[test]
fn company_cuts_forks_and_threads_change_nothing() {
    for family in ["qwen3", "gemma3", "smollm3", "granite", "phi3"] {
        let mut tiny = odd(family);
        if family == "gemma3" {
            let window = gguf::Value::Unsigned(70);
            tiny.keys = vec![("attention.sliding_window", window)];
        }
        for executor in executors().into_iter().skip(1) {
            let prompts = prompts(tiny.vocab);
            let single = load_on(&tiny, executor);
            let expected: Vec<_> = prompts
                .iter()
                .map(|prompt| alone(&single, prompt))
                .collect();
            for seed in 0..2 {
                let got = in_company(&single, &prompts, seed);
                assert!(got == expected, "{family} {executor:?}, seed {seed}");
            }
            let options = LoadOptions {
                context_tokens: Some(tiny.load_context),
                executor,
                threads: Some(3),
                ..LoadOptions::default()
            };
            let team = Model::load_with(&open(tiny.file()).unwrap(), &options).unwrap();
            let got = in_company(&team, &prompts, 9);
            assert!(got == expected, "{family} {executor:?} on three threads");
        }
    }
}

/// The same for stored types, whose kernels differ between one row and many.
#[test]
fn stored_types_have_one_order_of_sums() {
    for tiny in tiny::all() {
        if cpu::packed_type(tiny.dtype).is_none() || tiny.width != 256 {
            continue;
        }
        for executor in executors().into_iter().skip(1) {
            let model = load_on(&tiny, executor);
            let prompt = tiny::prompt(tiny.vocab);
            let together = model.forward_all(&mut model.new_cache(), &prompt).unwrap();
            let mut cache = model.new_cache();
            for (position, token) in prompt.iter().enumerate() {
                let row = model.forward(&mut cache, &[*token]).unwrap();
                assert!(
                    row == together[position],
                    "{} {executor:?} at {position}",
                    tiny.name
                );
            }
        }
    }
}
