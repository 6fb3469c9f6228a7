//! Tells the linker to write relocations in their packed form: of the static agent's 5 MB
//! every tenth byte was a relocation of the plain form.
//!
//! This is a flag of the programs alone; in `.cargo/config.toml` it would be one of every
//! dependency. Linkers from before binutils 2.38 pass over it.

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
