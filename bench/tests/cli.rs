//! The program as a user starts it. Figures are not looked at: they are the machine's.

use std::process::{Command, Output};

fn bench(words: &str) -> Output {
    let folder = std::env::temp_dir().join(format!("rxrpc-bench-test-{}", std::process::id()));
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(words.split_whitespace())
        .env("RUST_BACKTRACE", "0")
        .arg("--out")
        .arg(folder)
        .output()
        .unwrap()
}

#[test]
fn bad_input_is_told_in_one_line() {
    for words in
        ["frob", "--pairs 0 raw", "raw --datagram 3", "--seconds x bulk", "idle --connections 0"]
    {
        let output = bench(words);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {told}");
        assert_eq!(told.lines().count(), 1, "{words}: {told}");
        assert!(told.starts_with("bench: "), "{words}: {told}");
    }
}

#[test]
fn each_sample_is_a_line_of_json() {
    let output = bench("--pairs 1 --seconds 0.1 calls");
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{errors}");
    let samples: Vec<serde_json::Value> =
        told.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
    let names: Vec<_> =
        samples.iter().map(|it| format!("{} {}", it["case"], it["stack"])).collect();
    assert_eq!(names, ["\"1\" \"ours\"", "\"1\" \"raw\"", "\"16\" \"ours\"", "\"64\" \"ours\""]);
    for sample in samples {
        for key in ["wall_s", "units", "client_cpu_s", "server_cpu_s", "p50_us"] {
            assert!(sample[key].as_f64().is_some_and(|it| it > 0.0), "{key} of {sample}");
        }
        if sample["stack"] == "ours" {
            let sent = &sample["client"]["net"]["datagrams_sent"];
            assert!(sent.as_u64().unwrap() >= sample["units"].as_u64().unwrap());
            assert!(sample["server"]["allocations"].as_u64().unwrap() > 0);
        }
    }
}
