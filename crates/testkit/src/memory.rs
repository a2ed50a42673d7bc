//! What benchmarks say of memory.

/// Slab and vmalloc memory of the machine, and resident memory of this process, in KiB.
pub fn memory() -> (f64, f64) {
    let field = |path: &str, name: &str| -> f64 {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_string();
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0.0)
    };
    let kernel = field("/proc/meminfo", "Slab:") + field("/proc/meminfo", "VmallocUsed:");
    (kernel, field("/proc/self/status", "VmRSS:"))
}
