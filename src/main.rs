//! The `mallet` command.

fn main() -> std::process::ExitCode {
    mallet::cli::main()
}
