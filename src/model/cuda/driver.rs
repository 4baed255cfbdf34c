//! One device: its primary context, one stream of our own, memory, kernels and graphs.
//!
//! All work of a [`Gpu`] is ordered by its one stream. The context is the primary one, which every library of the process
//! shares. Addresses are plain numbers here: who computes with them says what they hold; [`Buffer`] owns them.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::CudaError;
use super::library::Library;

/// An address in the device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Address(pub u64);

impl Address {
    /// No address: kernels take it for an argument that is left out.
    pub const NONE: Self = Self(0);

    /// The address so many bytes on.
    pub fn plus(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// How many devices the driver shows.
///
/// # Errors
/// When there is no driver, or it does not start.
pub fn count() -> Result<usize, CudaError> {
    Library::Driver.load()?;
    result::init()?;
    Ok(usize::try_from(result::device::get_count()?).unwrap_or(0))
}

/// A device under work.
#[derive(Debug)]
pub struct Gpu {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// What the driver calls it.
    pub name: String,
    /// Its compute capability, such as (9, 0).
    pub capability: (i32, i32),
    /// How many multiprocessors it has.
    pub processors: usize,
    /// The most bytes of shared memory that a block can have.
    pub shared: usize,
}

// SAFETY: the driver's functions may be called from any thread; each thread makes the context current first (`bind`).
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

impl Gpu {
    /// Opens device `index`.
    ///
    /// # Errors
    /// Without driver or device, and on devices that are too old.
    pub fn open(index: usize) -> Result<Arc<Self>, CudaError> {
        use sys::CUdevice_attribute_enum as Attribute;
        let count = count()?;
        if index >= count {
            return Err(CudaError::NoDevice { index, count });
        }
        let device = result::device::get(index as i32)?;
        let name = result::device::get_name(device)?;
        // SAFETY: the device is one that the driver gave.
        let attribute = |attribute| unsafe { result::device::get_attribute(device, attribute) };
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let processors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        if major < 8 {
            return Err(CudaError::TooOld { name, major, minor });
        }
        // SAFETY: the device is one that the driver gave; the context is released when the `Gpu` is dropped.
        let context = unsafe { result::primary_ctx::retain(device) }?;
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(context) }?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        Ok(Arc::new(Self {
            device,
            context,
            stream,
            name,
            capability: (major, minor),
            processors: usize::try_from(processors).unwrap_or(1),
            shared: usize::try_from(shared).unwrap_or(0),
        }))
    }

    /// Makes the device the calling thread's. Every entry from outside begins with this.
    pub fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: the context is retained as long as `self` lives.
        Ok(unsafe { result::ctx::set_current(self.context) }?)
    }

    /// The stream on which everything runs.
    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    /// Waits until all work so far is done; errors of that work come to light here.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: the stream lives as long as `self`.
        Ok(unsafe { result::stream::synchronize(self.stream) }?)
    }

    /// Bytes of memory that are free, and in all.
    pub fn memory(&self) -> Result<(usize, usize), CudaError> {
        self.bind()?;
        Ok(result::mem_get_info()?)
    }

    /// Copies numbers to the device. The source may go when this returns.
    pub fn upload<T: Plain>(&self, to: Address, from: &[T]) -> Result<(), CudaError> {
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: the caller owns `to` with room for `from`; the driver copies pageable memory aside before it returns.
        Ok(unsafe { result::memcpy_htod_async(sys::CUdeviceptr::from(to.0), from, self.stream) }?)
    }

    /// Copies numbers from the device and waits for them.
    pub fn download<T: Plain>(&self, from: Address, count: usize) -> Result<Vec<T>, CudaError> {
        let mut numbers = vec![T::default(); count];
        if count > 0 {
            // SAFETY: the caller owns `count` numbers at `from`, and the copy is waited for before the vector is read.
            unsafe { result::memcpy_dtoh_async(&mut numbers, from.0, self.stream) }?;
            self.synchronize()?;
        }
        Ok(numbers)
    }

    /// Copies bytes within the device.
    pub fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), CudaError> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller owns both ranges.
        Ok(unsafe { result::memcpy_dtod_async(to.0, from.0, bytes, self.stream) }?)
    }

    /// Sets bytes to zero.
    pub fn clear(&self, at: Address, bytes: usize) -> Result<(), CudaError> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller owns the range.
        Ok(unsafe { result::memset_d8_async(at.0, 0, bytes, self.stream) }?)
    }

    /// Launches a kernel.
    pub(super) fn launch(
        &self,
        kernel: sys::CUfunction,
        grid: [u32; 3],
        block: [u32; 2],
        shared: u32,
        arguments: &Arguments,
    ) -> Result<(), CudaError> {
        if grid.contains(&0) {
            return Ok(());
        }
        let mut pointers: Vec<*mut c_void> =
            arguments.0.iter().map(|cell| std::ptr::from_ref(cell).cast_mut().cast()).collect();
        let [x, y, z] = grid;
        // SAFETY: the kernel is of a loaded module, and the cells live until the driver has copied them, which is now.
        unsafe {
            result::launch_kernel(kernel, (x, y, z), (block[0], block[1], 1), shared, self.stream, &mut pointers)
        }?;
        Ok(())
    }

    /// The milliseconds that work takes on the device.
    pub fn time(&self, work: impl FnOnce() -> Result<(), CudaError>) -> Result<f32, CudaError> {
        let event = || result::event::create(sys::CUevent_flags_enum::CU_EVENT_DEFAULT);
        let (begin, end) = (event()?, event()?);
        // SAFETY: events and stream live until they are destroyed here.
        unsafe {
            result::event::record(begin, self.stream)?;
            let outcome = work();
            result::event::record(end, self.stream)?;
            result::event::synchronize(end)?;
            let time = result::event::elapsed(begin, end);
            result::event::destroy(begin)?;
            result::event::destroy(end)?;
            outcome?;
            Ok(time?)
        }
    }

    /// Records what `work` launches, without running it.
    pub fn record(self: &Arc<Self>, work: impl FnOnce() -> Result<(), CudaError>) -> Result<Graph, CudaError> {
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives; a capture is always ended below, also when the work fails.
        unsafe { result::stream::begin_capture(self.stream, mode) }?;
        let outcome = work();
        // SAFETY: the capture was begun above.
        let graph = unsafe { result::stream::end_capture(self.stream) };
        if let Err(error) = outcome {
            if let Ok(graph) = graph {
                // SAFETY: the graph was just captured, and nobody else has it.
                let _ = unsafe { result::graph::destroy(graph) };
            }
            return Err(error);
        }
        let graph = graph?;
        // SAFETY: the graph was just captured; the executable form does not need it any more.
        let executable = unsafe {
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags_enum(0));
            result::graph::destroy(graph)?;
            executable?
        };
        Ok(Graph { executable, gpu: Arc::clone(self) })
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: nothing that uses stream and context is left; errors at the end of a process are of no use to anybody.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = result::stream::synchronize(self.stream);
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

/// Numbers that have the same bytes on host and device.
///
/// # Safety
/// Every pattern of bits must be a value: what a device wrote is read as such, unlooked at.
pub unsafe trait Plain: Copy + Default {}

// SAFETY: any bits are a number.
unsafe impl Plain for f32 {}
// SAFETY: any bits are a number.
unsafe impl Plain for f64 {}
// SAFETY: any bits are a number.
unsafe impl Plain for i32 {}
// SAFETY: any bits are a number.
unsafe impl Plain for u16 {}
// SAFETY: any bits are a number.
unsafe impl Plain for u32 {}
// SAFETY: any bits are a number.
unsafe impl Plain for u64 {}

/// The arguments of a kernel, each in a cell of eight bytes of which the kernel reads as many as it declares.
#[derive(Debug, Default)]
pub struct Arguments(Vec<u64>);

/// What can be an argument.
pub trait Argument {
    /// The cell: the value's bytes first, as the device reads them (little end first, as on all hosts of such devices).
    fn cell(self) -> u64;
}

impl Arguments {
    /// One more.
    #[must_use]
    pub fn with(mut self, argument: impl Argument) -> Self {
        self.0.push(argument.cell());
        self
    }
}

impl Argument for Address {
    fn cell(self) -> u64 {
        self.0
    }
}

impl Argument for f32 {
    fn cell(self) -> u64 {
        u64::from(self.to_bits())
    }
}

impl Argument for i32 {
    fn cell(self) -> u64 {
        u64::from(self as u32)
    }
}

/// A count: kernels take counts of rows and columns as `int`.
impl Argument for usize {
    fn cell(self) -> u64 {
        self as u64
    }
}

impl Argument for i64 {
    fn cell(self) -> u64 {
        self as u64
    }
}

impl Argument for u64 {
    fn cell(self) -> u64 {
        self
    }
}

/// Memory of the device, given back when it is dropped.
#[derive(Debug)]
pub struct Buffer {
    at: Address,
    bytes: usize,
    gpu: Arc<Gpu>,
}

impl Buffer {
    /// Takes memory; what it holds is undefined.
    ///
    /// # Errors
    /// When the device has not so much left; `what` is for the message.
    pub fn new(gpu: &Arc<Gpu>, bytes: usize, what: &str) -> Result<Self, CudaError> {
        gpu.bind()?;
        // SAFETY: the memory is owned by the buffer.
        let at = unsafe { result::malloc_sync(bytes.max(256)) }.map_err(|error| {
            let free = gpu.memory().map_or(0, |(free, _)| free);
            if error.0 == sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY {
                CudaError::Memory { what: what.to_owned(), wanted: bytes >> 20, free: free >> 20 }
            } else {
                error.into()
            }
        })?;
        Ok(Self { at: Address(at), bytes, gpu: Arc::clone(gpu) })
    }

    /// The first byte's address.
    pub fn at(&self) -> Address {
        self.at
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the buffer owns the memory; freeing waits for work that uses it.
        unsafe {
            let _ = result::ctx::set_current(self.gpu.context);
            let _ = result::free_sync(self.at.0);
        }
    }
}

/// Recorded launches that run as one.
#[derive(Debug)]
pub struct Graph {
    executable: sys::CUgraphExec,
    gpu: Arc<Gpu>,
}

// SAFETY: as for `Gpu`.
unsafe impl Send for Graph {}

impl Graph {
    /// Runs the recorded launches on the device's stream.
    pub fn launch(&self) -> Result<(), CudaError> {
        // SAFETY: graph and stream live.
        Ok(unsafe { result::graph::launch(self.executable, self.gpu.stream) }?)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the graph is ours; the driver keeps it until it has run.
        unsafe {
            let _ = result::ctx::set_current(self.gpu.context);
            let _ = result::graph::exec_destroy(self.executable);
        }
    }
}
