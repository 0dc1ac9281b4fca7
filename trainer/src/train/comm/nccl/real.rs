//! NCCL and the driver themselves, by `cudarc`, which loads both at run time.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Arc, Once};

use cudarc::driver::{self, CudaContext, CudaEvent, CudaStream, DriverError};
use cudarc::nccl::result::{self, NcclError, NcclStatus};
use cudarc::nccl::sys::{self, ncclDataType_t, ncclRedOp_t, ncclResult_t};
use tintype::burn::tensor::{Device, Tensor};
use tintype::shaders::{cuda_memory, cuda_ordinal};

use super::super::CommError;
use super::Placed;
use super::calls::{CUDA, Calls, Fault, NCCL, missing};

/// Variables of NCCL that this program prefers to its defaults; the user's own values stay.
const PREFERRED: [(&str, &str); 3] = [
    // In-network reduction (NVLS) adds in an order that varies, so a repeated run would get other bits. Rings and
    // trees add in the same order each time, on the same machines.
    ("NCCL_ALGO", "^NVLS,NVLSTree"),
    // Between GPUs of one process NCCL up to 2.22 would write into each other's tensors directly, which the driver only
    // allows for memory that was allocated for that.
    ("NCCL_P2P_DIRECT_DISABLE", "1"),
    // Calls return at once where NCCL first has to connect to other ranks, so that the limit holds there, too.
    ("NCCL_COMM_BLOCKING", "0"),
];

/// The index of a device that NCCL can use; an error if it is none or the libraries are missing.
pub(super) fn ordinal(device: &Device) -> Result<usize, CommError> {
    prepare()?;
    cuda_ordinal(device).ok_or_else(|| CommError::Engine {
        engine: NCCL,
        problem: format!("{device:?} is not a CUDA device"),
    })
}

/// See [`super::Nccl::unique_id`].
pub(super) fn unique_id() -> Result<[u8; 128], CommError> {
    prepare()?;
    let id = result::get_uniqueid().map_err(fault)?;
    Ok(id.internal.map(|byte| byte.to_ne_bytes()[0]))
}

/// Joins the other ranks, and waits for them. NCCL takes the device that is current in this thread.
pub(super) fn join(
    id: [u8; 128],
    rank: usize,
    world: usize,
    ordinal: usize,
) -> Result<Box<dyn Calls>, CommError> {
    // The primary context, which is Burn's, too.
    let context = CudaContext::new(ordinal).map_err(refused)?;
    // SAFETY: no slice of cudarc's is made in this context, which is what it tracks; otherwise it would wait for all
    // of Burn's work here.
    unsafe { context.disable_event_tracking() };
    context.bind_to_thread().map_err(refused)?;
    let stream = context.new_stream().map_err(refused)?;
    let event = context.new_event(None).map_err(refused)?;
    let id = sys::ncclUniqueId { internal: id.map(|byte| c_char::from_ne_bytes([byte])) };
    let mut communicator = std::ptr::null_mut();
    // SAFETY: `communicator` outlives the call, and the context is current.
    let joined =
        unsafe { result::comm_init_rank(&mut communicator, world as c_int, id, rank as c_int) };
    joined.map_err(fault)?;
    Ok(Box::new(Communicator { communicator, event, stream }))
}

/// The memory of tensors.
pub(super) fn place(tensors: &[Tensor<1>]) -> Result<Placed, CommError> {
    let memory = cuda_memory(tensors)
        .map_err(|error| CommError::Engine { engine: CUDA, problem: error.to_string() })?;
    let ready = memory.ready;
    Ok(Placed {
        addresses: memory.addresses,
        keep: memory.keep,
        ready: Box::pin(async move { ready.await.map_err(|error| error.to_string()) }),
    })
}

/// Looks for the libraries, of which cudarc would panic at the first call, and sets what NCCL reads at its first.
pub(super) fn prepare() -> Result<(), CommError> {
    // SAFETY: loading NVIDIA's driver runs its initialisers, as Burn does.
    if !unsafe { driver::sys::is_culib_present() } {
        let problem = "NVIDIA's driver was not found".to_owned();
        return Err(CommError::Engine { engine: CUDA, problem });
    }
    // SAFETY: NCCL has initialisers, but nothing that depends on their order.
    if !unsafe { sys::is_culib_present() } {
        return Err(missing());
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (name, value) in PREFERRED {
            if std::env::var_os(name).is_none() {
                // SAFETY: before the first call of NCCL, once. Rust's own readers of the environment are kept out
                // meanwhile; the driver, if it has started, has read its variables.
                unsafe { std::env::set_var(name, value) };
            }
        }
    });
    Ok(())
}

/// Why two ranks cannot share a GPU here.
#[cfg(test)]
pub(super) fn unavailable() -> Option<String> {
    if let Err(error) = prepare() {
        return Some(error.to_string());
    }
    match CudaContext::device_count() {
        Ok(1..) => (),
        Ok(_) => return Some("there is no GPU".to_owned()),
        Err(error) => return Some(CommError::from(refused(error)).to_string()),
    }
    match result::get_nccl_version() {
        Ok(23_000..) => None,
        Ok(version) => Some(format!("NCCL {version} does not let two ranks share a GPU")),
        Err(error) => Some(CommError::from(fault(error)).to_string()),
    }
}

/// What NCCL answered.
fn fault(NcclError(result): NcclError) -> Fault {
    // SAFETY: a communicator is not needed; the text is NCCL's own, of this thread, and ends with a zero.
    let said = unsafe {
        let text = sys::ncclGetLastError(std::ptr::null_mut());
        if text.is_null() {
            String::new()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    };
    let name = format!("{result:?}");
    Fault { engine: NCCL, name, code: result as u32, said }
}

/// What the driver answered.
fn refused(error: DriverError) -> Fault {
    let said = error.error_string().map(|text| text.to_string_lossy().into_owned());
    let name = format!("{:?}", error.0);
    Fault { engine: CUDA, name, code: error.0 as u32, said: said.unwrap_or_default() }
}

struct Communicator {
    communicator: sys::ncclComm_t,
    event: CudaEvent,
    stream: Arc<CudaStream>,
}

impl Communicator {
    fn stream(&self) -> sys::cudaStream_t {
        self.stream.cu_stream().cast()
    }
}

/// Whatever the status: what is still in progress, [`Calls::is_ready`] tells.
fn called(result: Result<NcclStatus, NcclError>) -> Result<(), Fault> {
    result.map(|_| ()).map_err(fault)
}

// SAFETY of the calls below: the communicator lives until `destroy` or `abort`, after which the engine calls nothing;
// addresses are of as many values as the calls read and write, and their memory is kept until the event or for ever.
impl Calls for Communicator {
    fn group_start(&mut self) -> Result<(), Fault> {
        called(result::group_start())
    }

    fn group_end(&mut self) -> Result<(), Fault> {
        called(result::group_end())
    }

    fn all_reduce(&mut self, input: u64, output: u64, count: usize) -> Result<(), Fault> {
        let (float, sum) = (ncclDataType_t::ncclFloat32, ncclRedOp_t::ncclSum);
        let (from, to) = (input as *const c_void, output as *mut c_void);
        // SAFETY: see above.
        called(unsafe {
            result::all_reduce(from, to, count, float, sum, self.communicator, self.stream())
        })
    }

    fn all_gather(&mut self, input: u64, output: u64, count: usize) -> Result<(), Fault> {
        let float = ncclDataType_t::ncclFloat32;
        let (from, to) = (input as *const c_void, output as *mut c_void);
        // SAFETY: see above.
        called(unsafe {
            result::all_gather(from, to, count, float, self.communicator, self.stream())
        })
    }

    fn broadcast(&mut self, input: u64, output: u64, count: usize) -> Result<(), Fault> {
        let float = ncclDataType_t::ncclFloat32;
        let (from, to) = (input as *const c_void, output as *mut c_void);
        // SAFETY: see above.
        called(unsafe {
            result::broadcast(from, to, count, float, 0, self.communicator, self.stream())
        })
    }

    fn is_ready(&mut self) -> Result<bool, Fault> {
        let mut state = ncclResult_t::ncclSuccess;
        // SAFETY: see above; `state` outlives the call.
        let asked = unsafe { sys::ncclCommGetAsyncError(self.communicator, &mut state) };
        called(asked.result())?;
        Ok(state.result().map_err(fault)? != NcclStatus::InProgress)
    }

    fn record(&mut self) -> Result<(), Fault> {
        self.event.record(&self.stream).map_err(refused)
    }

    fn is_done(&mut self) -> Result<bool, Fault> {
        self.event.try_is_complete().map_err(refused)
    }

    fn finalize(&mut self) -> Result<(), Fault> {
        // SAFETY: see above.
        called(unsafe { result::comm_finalize(self.communicator) })
    }

    fn destroy(&mut self) {
        // SAFETY: see above. There is nobody to tell of a failure.
        let _ = unsafe { result::comm_destroy(self.communicator) };
    }

    fn abort(&mut self) {
        // SAFETY: see above. There is nobody to tell of a failure.
        let _ = unsafe { result::comm_abort(self.communicator) };
    }
}
