//! Prints how fast the CPU kernels are, for each instruction set, type and
//! number of rows: GB/s of packed weights and GOPS.
//!
//! `cargo run --release -p nearfar-engine --example kernels -- [--threads N]
//! [--shape OUTPUTSxINPUTS] [--isa NAME] [--types Q4K,Q6K] [--rows 1,512] [--mib N]`
//!
//! With few rows, copies of the matrix fill `--mib` MiB (default 300), so that
//! they come from memory; a small number shows what the kernels alone can.

use nearfar_engine::gguf::TensorType;
use nearfar_engine::{Isa, measure};

const USAGE: &str = "usage: kernels [--threads N] [--shape OUTPUTSxINPUTS] [--isa NAME] \
                     [--types Q4K,Q6K] [--rows 1,512] [--mib N]";
const TYPES: [TensorType; 8] = [
    TensorType::Q4K,
    TensorType::Q6K,
    TensorType::Q8_0,
    TensorType::Q4_0,
    TensorType::Q5K,
    TensorType::F16,
    TensorType::BF16,
    TensorType::F32,
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut threads = 1;
    let mut shape = (4096, 1024);
    let mut rows = vec![1, 4, 8, 32, 512];
    let mut isas = Isa::available();
    let mut types = TYPES.to_vec();
    let mut memory = measure::BEYOND_CACHES;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match name.as_str() {
            "--threads" => threads = value.parse()?,
            "--shape" => {
                let (outputs, inputs) = value.split_once('x').ok_or(USAGE)?;
                shape = (outputs.parse()?, inputs.parse()?);
            }
            "--mib" => memory = value.parse::<usize>()? << 20,
            "--rows" => rows = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--isa" => isas.retain(|isa| format!("{isa:?}").eq_ignore_ascii_case(&value)),
            "--types" => types.retain(|ty| value.split(',').any(|name| name == format!("{ty:?}"))),
            _ => return Err(USAGE.into()),
        }
    }
    println!(
        "memory: {:.1} GB/s, {threads} threads",
        measure::read_bandwidth(threads)? / 1e9
    );
    for isa in isas {
        println!("{isa:?}, {} x {}", shape.0, shape.1);
        for ty in &types {
            print!("  {:5}", ty.name());
            for rows in &rows {
                let speed = measure::product(threads, isa, *ty, shape, *rows, memory)?;
                print!(
                    "  {rows:3}: {:5.1} GB/s {:4.0} GOPS",
                    speed.gigabytes, speed.gigaops
                );
            }
            println!();
        }
        for (heads, kv_heads, head_dim) in [(16, 8, 128), (32, 8, 64)] {
            for (depth, rows) in [(2048, 1), (4096, 1), (1024, 32)] {
                let time =
                    measure::attention(threads, isa, (heads, kv_heads, head_dim), depth, rows);
                println!(
                    "  attention, {heads} heads of {head_dim} over {kv_heads}, {rows} rows at depth {depth}: {:.0} us",
                    time.as_secs_f64() * 1e6
                );
            }
        }
    }
    Ok(())
}
