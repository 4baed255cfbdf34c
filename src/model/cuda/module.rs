//! Our kernels: CUDA C++ compiled once by NVRTC for the device at hand, and kept as binaries that later runs load.
//!
//! A binary is named by what it was made of: module, architecture, a hash of source and options, NVRTC's version. The folder
//! may be carried to another machine. Where no NVRTC is found, a binary of the same source by any NVRTC does. A kept binary
//! ends with its own hash: what a crash or a full disk tore is not taken for a whole one, and is compiled anew.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cudarc::driver::{result, sys};
use cudarc::nvrtc::{result as nvrtc, sys as nvrtc_sys};

use super::CudaError;
use super::driver::{Address, Arguments, Gpu};
use super::library::Library;

/// The bytes of the hash at the end of a kept binary.
const SEAL: usize = blake3::OUT_LEN;

/// What every module begins with.
const COMMON: &str = include_str!("kernels/common.cuh");

/// The modules that are the same for every model: a name and a source each.
const SHARED: [(&str, &str); 6] = [
    ("rows", include_str!("kernels/rows.cu")),
    ("norms", include_str!("kernels/norms.cu")),
    ("rope", include_str!("kernels/rope.cu")),
    ("head", include_str!("kernels/head.cu")),
    ("step", include_str!("kernels/step.cu")),
    ("sample", include_str!("kernels/sample.cu")),
];

/// The modules that are compiled for a size of head and a type of number.
const SHAPED: [(&str, &str); 2] =
    [("decode", include_str!("kernels/decode.cu")), ("skinny", include_str!("kernels/skinny.cu"))];

/// Attention, of that kind too: for any device, and with instructions that only Hopper has.
const ATTEND: &str = concat!(include_str!("kernels/attend_tiles.cuh"), include_str!("kernels/attend.cu"));
const ATTEND_HOPPER: &str = concat!(include_str!("kernels/hopper_tiles.cuh"), include_str!("kernels/attend_hopper.cu"));

/// What the kernels are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The device's compute capability.
    pub capability: (i32, i32),
    /// The size of a head.
    pub head: usize,
    /// Query heads that share a key head.
    pub group: usize,
    /// Whether activations are bf16; else they are f32.
    pub half: bool,
}

/// One module to compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub module: &'static str,
    source: String,
    options: Vec<String>,
}

/// The modules for a target.
pub fn units(target: Target) -> Vec<Unit> {
    let unit = |module: &'static str, source: &str, options: Vec<String>| Unit {
        module,
        source: format!("{COMMON}\n#line 1 \"{module}.cu\"\n{source}"),
        options,
    };
    let shared = options(target.capability);
    let mut shaped = shared.clone();
    shaped.extend([
        format!("-DHEAD={}", target.head),
        format!("-DGROUP={}", target.group),
        format!("-DBF16={}", i32::from(target.half)),
    ]);
    let hopper = target.capability == (9, 0) && target.half && [64, 128].contains(&target.head);
    let attend = ("attend", if hopper { ATTEND_HOPPER } else { ATTEND });
    let shared = SHARED.iter().map(|(module, source)| unit(module, source, shared.clone()));
    shared.chain(SHAPED.iter().chain([&attend]).map(|(module, source)| unit(module, source, shaped.clone()))).collect()
}

impl Unit {
    /// The name of its binary, but for the compiler's version: it differs whenever source or options do.
    pub fn stem(&self) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(self.source.as_bytes());
        for option in &self.options {
            hash.update(&[0]).update(option.as_bytes());
        }
        format!("{}-{}", self.module, &hash.finalize().to_hex()[..16])
    }

    /// Compiles it. NVRTC must be loaded.
    ///
    /// # Errors
    /// When the source does not compile.
    pub fn compile(&self) -> Result<Vec<u8>, CudaError> {
        compile(self.module, &self.source, &self.options)
    }
}

/// A kernel's handle.
#[derive(Clone, Copy, Debug)]
pub struct Kernel(pub(super) sys::CUfunction);

/// All kernels, loaded on one device.
#[derive(Debug)]
pub struct Kernels {
    modules: Vec<sys::CUmodule>,
    found: RefCell<HashMap<String, Kernel>>,
    constants: RefCell<HashMap<String, Vec<i32>>>,
    gpu: Arc<Gpu>,
}

// SAFETY: handles are plain addresses in the driver; whoever holds the kernels is the only one to use them.
unsafe impl Send for Kernels {}

impl Kernels {
    /// Loads every module, from `cache` where it holds them; what is compiled is written there.
    ///
    /// # Errors
    /// Without NVRTC and without binaries, when a source does not compile, and when the cache cannot be written.
    pub fn load(gpu: &Arc<Gpu>, [head, group]: [usize; 2], half: bool, cache: &Path) -> Result<Self, CudaError> {
        gpu.bind()?;
        let mut kernels = Self {
            modules: Vec::new(),
            found: RefCell::default(),
            constants: RefCell::default(),
            gpu: Arc::clone(gpu),
        };
        // SAFETY: the bytes are a whole cubin, as its hash says, from which the driver reads its length; it copies them. The
        // module is unloaded when the kernels are dropped.
        let load = |bytes: &[u8]| unsafe { result::module::load_data(bytes.as_ptr().cast()) };
        for image in images(Target { capability: gpu.capability, head, group, half }, cache)? {
            // A driver may refuse what another compiler made: then ours makes it again.
            let module = match (load(&image.bytes), &image.kept) {
                (Err(_), Some(path)) if Library::Nvrtc.load().is_ok() => load(&make(&image.unit, path)?)?,
                (loaded, _) => loaded?,
            };
            kernels.modules.push(module);
        }
        Ok(kernels)
    }

    /// The kernel of this name, which may use `shared` bytes of dynamic shared memory.
    ///
    /// # Errors
    /// When no module has it, or the device has not so much shared memory.
    pub fn get(&self, name: &str, shared: u32) -> Result<Kernel, CudaError> {
        if let Some(kernel) = self.found.borrow().get(name) {
            return Ok(*kernel);
        }
        let text = CString::new(name).map_err(|_| CudaError::Kernel(name.to_owned()))?;
        // SAFETY: the modules are loaded.
        let found = self.modules.iter().find_map(|m| unsafe { result::module::get_function(*m, text.clone()) }.ok());
        let function = found.ok_or_else(|| CudaError::Kernel(name.to_owned()))?;
        if shared > 48 * 1024 {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was just found.
            unsafe { result::function::set_function_attribute(function, attribute, shared as i32) }?;
        }
        self.found.borrow_mut().insert(name.to_owned(), Kernel(function));
        Ok(Kernel(function))
    }

    /// The first `count` numbers of a constant that a module exports.
    ///
    /// # Errors
    /// When no module has it.
    pub(super) fn constants(&self, name: &str, count: usize) -> Result<Vec<i32>, CudaError> {
        if let Some(numbers) = self.constants.borrow().get(name) {
            return Ok(numbers.clone());
        }
        let text = CString::new(name).map_err(|_| CudaError::Kernel(name.to_owned()))?;
        // SAFETY: the modules are loaded.
        let found = self.modules.iter().find_map(|m| unsafe { result::module::get_global(*m, text.clone()) }.ok());
        let (at, bytes) = found.ok_or_else(|| CudaError::Kernel(name.to_owned()))?;
        let numbers: Vec<i32> = self.gpu.download(Address(at), count.min(bytes / 4))?;
        self.constants.borrow_mut().insert(name.to_owned(), numbers.clone());
        Ok(numbers)
    }

    /// Launches the kernel of this name on the device's stream.
    ///
    /// # Errors
    /// When no module has it, or the driver refuses.
    pub(super) fn launch(
        &self,
        name: &str,
        grid: [usize; 3],
        block: [u32; 2],
        shared: u32,
        arguments: &Arguments,
    ) -> Result<(), CudaError> {
        let kernel = self.get(name, shared)?;
        self.gpu.launch(kernel.0, grid.map(|size| size as u32), block, shared, arguments)
    }

    /// The device that the kernels are loaded on.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        let _ = self.gpu.bind();
        for module in &self.modules {
            // SAFETY: no kernel of it is launched any more.
            let _ = unsafe { result::module::unload(*module) };
        }
    }
}

/// The binary of a module.
#[derive(Debug)]
struct Image {
    unit: Unit,
    bytes: Vec<u8>,
    /// Where it lay, when it was not compiled just now.
    kept: Option<PathBuf>,
}

/// The binaries of all modules, compiled side by side where they are missing.
fn images(target: Target, cache: &Path) -> Result<Vec<Image>, CudaError> {
    let version = Library::Nvrtc.load().map(|()| version());
    let one = |unit: Unit| {
        let stem = unit.stem();
        match &version {
            Ok(version) => image(unit, cache.join(format!("{stem}-nvrtc{version}.cubin"))),
            Err(missing) => any_image(cache, unit).ok_or_else(|| missing.clone()),
        }
    };
    let units = units(target);
    std::thread::scope(|scope| {
        let one = &one;
        let running: Vec<_> = units.into_iter().map(|unit| scope.spawn(move || one(unit))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// A binary of this source by whatever compiler: of several whole ones that whose name sorts last.
fn any_image(cache: &Path, unit: Unit) -> Option<Image> {
    let stem = unit.stem();
    let names = std::fs::read_dir(cache).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(&stem) && name.ends_with(".cubin")).collect();
    names.sort();
    let mut paths = names.iter().rev().map(|name| cache.join(name));
    paths.find_map(|path| Some(Image { bytes: kept(&path)?, kept: Some(path), unit: unit.clone() }))
}

/// The binary at `path`, made and kept where it is missing or torn.
fn image(unit: Unit, path: PathBuf) -> Result<Image, CudaError> {
    if let Some(bytes) = kept(&path) {
        return Ok(Image { unit, bytes, kept: Some(path) });
    }
    let bytes = make(&unit, &path)?;
    Ok(Image { unit, bytes, kept: None })
}

/// Compiles a module and keeps its binary.
fn make(unit: &Unit, path: &Path) -> Result<Vec<u8>, CudaError> {
    let bytes = unit.compile()?;
    keep(path, &bytes)?;
    Ok(bytes)
}

/// The binary at `path`, if it is there with all the bytes that were kept.
fn kept(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = std::fs::read(path).ok()?;
    let (binary, seal) = bytes.split_at_checked(bytes.len().checked_sub(SEAL)?)?;
    let whole = whole(binary) && blake3::hash(binary).as_bytes() == seal;
    bytes.truncate(bytes.len() - SEAL);
    whole.then_some(bytes)
}

/// Whether these are the bytes of a binary: an ELF file.
fn whole(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF") && bytes.len() > 1024
}

/// Writes a binary and its hash beside their place and moves them there, so that nobody reads half of them, however many
/// threads, processes and machines keep the same binary.
fn keep(path: &Path, bytes: &[u8]) -> Result<(), CudaError> {
    let error = |reason: std::io::Error| CudaError::Cache { path: path.to_owned(), reason: reason.to_string() };
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(error)?;
    let mut aside = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(error)?;
    aside.write_all(bytes).and_then(|()| aside.write_all(blake3::hash(bytes).as_bytes())).map_err(error)?;
    aside.persist(path).map(|_| ()).map_err(|refused| error(refused.error))
}

fn options((major, minor): (i32, i32)) -> Vec<String> {
    // Hopper's own instructions are only in the architecture's `a` variant.
    let variant = if (major, minor) == (9, 0) { "a" } else { "" };
    vec![
        "--std=c++17".to_owned(),
        "-default-device".to_owned(),
        format!("--gpu-architecture=sm_{major}{minor}{variant}"),
    ]
}

/// The compiler's version, such as `13.0`. It must be loaded.
fn version() -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both are places for a number.
    unsafe { nvrtc_sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    format!("{major}.{minor}")
}

fn compile(module: &'static str, source: &str, options: &[String]) -> Result<Vec<u8>, CudaError> {
    let failed = |log: String| CudaError::Compile { module, log };
    let text = CString::new(source).map_err(|_| failed("the source has a zero byte".to_owned()))?;
    let program = nvrtc::create_program(&text, None).map_err(|error| failed(error.to_string()))?;
    // SAFETY: the program was just made, and is destroyed below, once.
    let outcome = unsafe { nvrtc::compile_program(program, options) };
    let bytes = match outcome {
        Ok(()) => binary(program).ok_or_else(|| failed("no binary came out".to_owned())),
        Err(error) => {
            // SAFETY: the program lives; the log ends with a zero byte, which NVRTC writes.
            let log = unsafe { nvrtc::get_program_log(program) }.unwrap_or_default();
            let log: Vec<u8> = log.into_iter().map(|c| c as u8).collect();
            let log = CStr::from_bytes_until_nul(&log).map(|log| log.to_string_lossy().into_owned());
            Err(failed(complaint(&log.unwrap_or_default(), &error.to_string(), options)))
        }
    };
    // SAFETY: the program is used no more.
    let _ = unsafe { nvrtc::destroy_program(program) };
    bytes
}

/// What the compiler said, or where it said nothing its error; where it may not know the device, what would help.
fn complaint(log: &str, error: &str, options: &[String]) -> String {
    let said = if log.trim().is_empty() { error } else { log.trim() };
    let architecture = options.iter().find_map(|option| option.strip_prefix("--gpu-architecture="));
    match architecture.filter(|_| log.trim().is_empty() || log.contains("gpu-architecture")) {
        Some(name) => format!("{said}; a newer CUDA toolkit may know {name}"),
        None => said.to_owned(),
    }
}

fn binary(program: nvrtc_sys::nvrtcProgram) -> Option<Vec<u8>> {
    let mut size = 0;
    // SAFETY: the program was compiled; the vector has as many bytes as NVRTC says.
    unsafe {
        nvrtc_sys::nvrtcGetCUBINSize(program, &raw mut size).result().ok()?;
        let mut bytes = vec![0_u8; size];
        nvrtc_sys::nvrtcGetCUBIN(program, bytes.as_mut_ptr().cast()).result().ok()?;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target { capability: (9, 0), head: 64, group: 4, half: true };

    #[test]
    fn a_binary_is_named_by_all_that_it_is_made_of() {
        let stems = |target| units(target).iter().map(Unit::stem).collect::<Vec<_>>();
        let first = stems(TARGET);
        assert_eq!(first, stems(TARGET));
        for other in [Target { head: 128, ..TARGET }, Target { half: false, ..TARGET }, Target { group: 1, ..TARGET }] {
            let same = first.iter().filter(|stem| stems(other).contains(stem)).count();
            assert_eq!(same, SHARED.len(), "{other:?}");
        }
        let older = stems(Target { capability: (8, 0), ..TARGET });
        assert!(first.iter().all(|stem| !older.contains(stem)));
    }

    #[test]
    fn a_compiler_that_does_not_know_the_device_is_to_be_replaced() {
        let options = options((12, 1));
        let advice = "a newer CUDA toolkit may know sm_121";
        assert_eq!(complaint("\n", "invalid option", &options), format!("invalid option; {advice}"));
        let log = "nvrtc: error: invalid value for --gpu-architecture (-arch)\n";
        assert_eq!(complaint(log, "invalid option", &options), format!("{}; {advice}", log.trim()));
        assert_eq!(complaint("step.cu(3): error: what\n", "failed", &options), "step.cu(3): error: what");
    }

    /// A binary, and a place for it in a folder that is not there yet.
    fn binary_at(folder: &Path, unit: &Unit) -> (Vec<u8>, PathBuf) {
        let binary = [b"\x7fELF".to_vec(), (0..4096).map(|byte| byte as u8).collect()].concat();
        (binary, folder.join("below").join(format!("{}-nvrtc12.8.cubin", unit.stem())))
    }

    #[test]
    fn binaries_are_kept_whole_and_those_of_another_compiler_serve_where_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let unit = units(TARGET).remove(0);
        let (binary, path) = binary_at(folder.path(), &unit);
        keep(&path, &binary).unwrap();
        assert_eq!(image(unit.clone(), path.clone()).unwrap().bytes, binary);
        let folder = path.parent().unwrap();
        let later = folder.join(format!("{}-nvrtc13.0.cubin", unit.stem()));
        std::fs::write(&later, &binary).unwrap();
        // What sorts last has no hash: the other one is taken.
        let found = any_image(folder, unit).unwrap();
        assert_eq!((found.bytes, found.kept), (binary.clone(), Some(path.clone())));
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 2);
        let error = keep(&path.join("below a file"), &binary).unwrap_err();
        assert!(error.to_string().starts_with("cannot keep compiled kernels in `"), "{error}");
    }

    #[test]
    fn a_torn_binary_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let unit = units(TARGET).remove(0);
        let (binary, path) = binary_at(folder.path(), &unit);
        keep(&path, &binary).unwrap();
        let written = std::fs::read(&path).unwrap();
        let mut holed = written.clone();
        holed[2000..3000].fill(0);
        let longer = [written.clone(), vec![0; 512]].concat();
        for torn in [&written[..100], &written[..2048], &written[..written.len() - 1], &holed, &longer, &[]] {
            std::fs::write(&path, torn).unwrap();
            assert_eq!(kept(&path), None, "{} bytes", torn.len());
            assert!(any_image(path.parent().unwrap(), unit.clone()).is_none());
        }
        keep(&path, &binary).unwrap();
        assert_eq!(kept(&path).unwrap(), binary);
    }

    #[test]
    fn many_may_keep_the_same_binary_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (binary, path) = binary_at(folder.path(), &units(TARGET)[0]);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        keep(&path, &binary).unwrap();
                        assert_eq!(kept(&path).unwrap(), binary);
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    /// Needs NVRTC and no device; passes over where there is none.
    #[test]
    fn a_torn_binary_is_compiled_anew() {
        if Library::Nvrtc.load().is_err() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let unit = units(TARGET).into_iter().find(|unit| unit.module == "step").unwrap();
        let path = folder.path().join("step.cubin");
        let first = image(unit.clone(), path.clone()).unwrap();
        assert_eq!(first.kept, None);
        let written = std::fs::read(&path).unwrap();
        std::fs::write(&path, &written[..written.len() / 2]).unwrap();
        let again = image(unit.clone(), path.clone()).unwrap();
        assert!(again.kept.is_none() && whole(&again.bytes));
        assert_eq!(image(unit, path.clone()).unwrap().kept, Some(path));
    }

    /// Needs NVRTC and no device; passes over where there is none.
    #[test]
    fn all_kernels_compile() {
        if let Err(missing) = Library::Nvrtc.load() {
            eprintln!("not compiled: {missing}");
            return;
        }
        let single = Target { head: 32, group: 1, half: false, ..TARGET };
        for target in [TARGET, single, Target { head: 48, group: 2, ..TARGET }] {
            for unit in units(target) {
                let binary = unit.compile().unwrap_or_else(|error| panic!("{error}"));
                assert!(whole(&binary), "{}", unit.module);
            }
        }
        let wrong =
            Unit { module: "wrong", source: "__global__ void f() { nothing(); }".to_owned(), options: Vec::new() };
        let error = wrong.compile().unwrap_err().to_string();
        assert!(
            error.starts_with("NVRTC cannot compile the kernels of `wrong`: ") && error.contains("nothing"),
            "{error}"
        );
    }
}
