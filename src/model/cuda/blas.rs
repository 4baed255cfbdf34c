//! Matrix products by cuBLASLt, in the row-major layout of everything else here.
//!
//! A row-major matrix is the transpose of a column-major one, so `C = A B` is asked for as `C^T = B^T A^T`. What cuBLASLt
//! chooses for a shape is asked once and kept; shapes that come again and again are tried out.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::sync::Arc;

use cudarc::cublaslt::{result, sys};

use super::CudaError;
use super::driver::{Address, Buffer, Gpu};
use super::library::Library;

/// Scratch memory of products: what NVIDIA recommends for Hopper, twice.
const WORKSPACE: usize = 64 << 20;

/// Matrices begin at multiples of so many bytes, also those that are columns of a wider one.
const ALIGNMENT: u32 = 16;

/// How many of cuBLASLt's proposals are timed for a shape, where timing is on.
const PROPOSALS: usize = 8;

/// Before this use of a shape its proposals are timed, not before: that takes as long as some thirty uses, and in a training on
/// texts of all lengths most shapes come seldom.
const TRIED_AT: u32 = 8;

/// The numbers of a matrix on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Number {
    /// 32 bits.
    F32,
    /// 16 bits with the exponent of `f32`.
    Bf16,
}

impl Number {
    /// The bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    fn type_(self) -> sys::cudaDataType {
        match self {
            Self::F32 => sys::cudaDataType::CUDA_R_32F,
            Self::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        }
    }
}

/// A matrix in memory: where it begins, and how far its rows are apart.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    /// The first number.
    pub at: Address,
    /// Numbers from one row's beginning to the next's.
    pub stride: usize,
    /// Whether the transpose of what lies there is meant.
    pub turned: bool,
}

impl Matrix {
    /// A matrix whose rows lie `stride` apart.
    pub fn new(at: Address, stride: usize) -> Self {
        Self { at, stride, turned: false }
    }

    /// The transpose of this one.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { turned: !self.turned, ..self }
    }
}

/// A product's shape and types: what cuBLASLt's choice depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    rows: usize,
    columns: usize,
    inner: usize,
    left: (usize, bool),
    right: (usize, bool),
    added: usize,
    out: usize,
    number: Number,
    result: Number,
    adds: bool,
}

struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 4],
    choice: sys::cublasLtMatmulAlgo_t,
    /// How often it was used.
    uses: u32,
}

/// Products on one device.
pub struct Blas {
    handle: sys::cublasLtHandle_t,
    workspace: Buffer,
    plans: RefCell<HashMap<Shape, Plan>>,
    /// Whether proposals for shapes that come often are timed.
    timed: bool,
    gpu: Arc<Gpu>,
}

// SAFETY: whoever holds the `Blas` is the only one to use its handle and plans.
unsafe impl Send for Blas {}

/// `out = scale * left right + keep`: `left` is [rows, inner], `right` [inner, columns].
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Rows of the left matrix and the result.
    pub rows: usize,
    /// Columns of the right matrix and the result.
    pub columns: usize,
    /// Columns of the left matrix and rows of the right one.
    pub inner: usize,
    /// [rows, inner]
    pub left: Matrix,
    /// [inner, columns]
    pub right: Matrix,
    /// What is added, of the result's type; it may be the result's own place.
    pub added: Option<Matrix>,
    /// [rows, columns]
    pub out: Matrix,
    /// What the product is multiplied by.
    pub scale: f32,
    /// The numbers of `left` and `right`.
    pub number: Number,
    /// The numbers of `added` and `out`.
    pub result: Number,
}

impl Blas {
    /// Products on a device, the quickest of cuBLASLt's first proposals taken for large shapes that come often, where `timed`.
    ///
    /// # Errors
    /// Without cuBLASLt, or without memory for its scratch.
    pub fn new(gpu: &Arc<Gpu>, timed: bool) -> Result<Self, CudaError> {
        Library::BlasLt.load()?;
        let workspace = Buffer::new(gpu, WORKSPACE, "scratch of matrix products")?;
        let handle = result::create_handle()?;
        Ok(Self { handle, workspace, plans: RefCell::default(), timed, gpu: Arc::clone(gpu) })
    }

    /// Queues a product on the device's stream.
    ///
    /// # Errors
    /// When cuBLASLt has no kernel for it.
    pub fn multiply(&self, product: &Product) -> Result<(), CudaError> {
        if product.rows == 0 || product.columns == 0 {
            return Ok(());
        }
        let shape = shape(product);
        let mut plans = self.plans.borrow_mut();
        let plan = match plans.entry(shape) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(self.plan(&shape)?),
        };
        plan.uses += 1;
        let large = 2 * shape.rows * shape.columns * shape.inner > 1 << 30;
        if self.timed && large && plan.uses == TRIED_AT {
            let proposals = self.proposals(plan.description, &plan.layouts, PROPOSALS)?;
            plan.choice = self.quickest(plan, product, &proposals)?;
        }
        self.run(plan, product, &plan.choice)
    }

    fn run(&self, plan: &Plan, product: &Product, choice: &sys::cublasLtMatmulAlgo_t) -> Result<(), CudaError> {
        let pointer = |at: Address| at.0 as *const c_void;
        let added = product.added.unwrap_or(product.out);
        let (alpha, beta) = (product.scale, if product.added.is_some() { 1.0_f32 } else { 0.0 });
        let [right, left, added_, out] = plan.layouts;
        // SAFETY: descriptions live in the plan; the matrices are the caller's and as large as the shape says.
        unsafe {
            result::matmul(
                self.handle,
                plan.description,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                pointer(product.right.at),
                right,
                pointer(product.left.at),
                left,
                pointer(added.at),
                added_,
                pointer(product.out.at).cast_mut(),
                out,
                choice,
                pointer(self.workspace.at()).cast_mut(),
                WORKSPACE,
                self.gpu.stream().cast(),
            )
        }?;
        Ok(())
    }

    fn plan(&self, shape: &Shape) -> Result<Plan, CudaError> {
        let compute = match shape.number {
            Number::F32 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            Number::Bf16 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let description = result::create_matmul_desc(compute, sys::cudaDataType::CUDA_R_32F)?;
        for (attribute, (_, turned)) in [
            (sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, shape.right),
            (sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSB, shape.left),
        ] {
            let turned = i32::from(turned);
            // SAFETY: the attribute is four bytes, copied during the call.
            unsafe { result::set_matmul_desc_attribute(description, attribute, (&raw const turned).cast(), 4) }?;
        }
        // Columns of cuBLAS are our rows: a matrix that lies there as [a, b] has `b` rows and `a` columns for it.
        let layout = |number: Number, (a, b): (usize, usize), stride: usize| {
            result::create_matrix_layout(number.type_(), b as u64, a as u64, stride as i64)
        };
        let lying = |(a, b): (usize, usize), turned: bool| if turned { (b, a) } else { (a, b) };
        let Shape { rows, columns, inner, .. } = *shape;
        let layouts = [
            layout(shape.number, lying((inner, columns), shape.right.1), shape.right.0)?,
            layout(shape.number, lying((rows, inner), shape.left.1), shape.left.0)?,
            layout(shape.result, (rows, columns), shape.added)?,
            layout(shape.result, (rows, columns), shape.out)?,
        ];
        let choice = self.proposals(description, &layouts, 1)?[0];
        Ok(Plan { description, layouts, choice, uses: 0 })
    }

    fn proposals(
        &self,
        description: sys::cublasLtMatmulDesc_t,
        layouts: &[sys::cublasLtMatrixLayout_t; 4],
        wanted: usize,
    ) -> Result<Vec<sys::cublasLtMatmulAlgo_t>, CudaError> {
        let preference = result::create_matmul_pref()?;
        let attribute = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        let (size, alignment) = (WORKSPACE as u64, ALIGNMENT);
        let aligned = {
            use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
            [
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
            ]
        };
        let mut found = 0;
        // SAFETY: the attribute is eight bytes, copied during the call; the vector has room for what is wanted, and only as
        // many as were found are read.
        let proposals = unsafe {
            result::set_matmul_pref_attribute(preference, attribute, (&raw const size).cast(), 8)?;
            for attribute in aligned {
                result::set_matmul_pref_attribute(preference, attribute, (&raw const alignment).cast(), 4)?;
            }
            let mut proposals: Vec<sys::cublasLtMatmulHeuristicResult_t> = Vec::with_capacity(wanted);
            let status = sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                description,
                layouts[0],
                layouts[1],
                layouts[2],
                layouts[3],
                preference,
                wanted as i32,
                proposals.as_mut_ptr(),
                &raw mut found,
            );
            result::destroy_matmul_pref(preference)?;
            status.result()?;
            proposals.set_len(usize::try_from(found).unwrap_or(0).min(wanted));
            proposals
        };
        let good = |p: &&sys::cublasLtMatmulHeuristicResult_t| p.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS;
        let proposals: Vec<_> = proposals.iter().filter(good).map(|proposal| proposal.algo).collect();
        if proposals.is_empty() {
            Err(CudaError::Product("no kernel takes this shape".to_owned()))
        } else {
            Ok(proposals)
        }
    }

    /// The proposal that runs quickest, each run into a place of its own.
    fn quickest(
        &self,
        plan: &Plan,
        product: &Product,
        proposals: &[sys::cublasLtMatmulAlgo_t],
    ) -> Result<sys::cublasLtMatmulAlgo_t, CudaError> {
        let bytes = product.rows * product.out.stride * product.result.bytes();
        let Ok(aside) = Buffer::new(&self.gpu, bytes, "trial of a product") else { return Ok(proposals[0]) };
        let added = product
            .added
            .map(|added| if added.at == product.out.at { Matrix { at: aside.at(), ..added } } else { added });
        let trial = Product { out: Matrix { at: aside.at(), ..product.out }, added, ..*product };
        let mut best = (f32::INFINITY, proposals[0]);
        for choice in proposals {
            if self.run(plan, &trial, choice).is_err() {
                continue;
            }
            let time = self.gpu.time(|| (0..3).try_for_each(|_| self.run(plan, &trial, choice)))?;
            if time < best.0 {
                best = (time, *choice);
            }
        }
        Ok(best.1)
    }
}

fn shape(product: &Product) -> Shape {
    Shape {
        rows: product.rows,
        columns: product.columns,
        inner: product.inner,
        left: (product.left.stride, product.left.turned),
        right: (product.right.stride, product.right.turned),
        added: product.added.unwrap_or(product.out).stride,
        out: product.out.stride,
        number: product.number,
        result: product.result,
        adds: product.added.is_some(),
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        let _ = self.gpu.bind();
        let _ = self.gpu.synchronize();
        for plan in self.plans.borrow_mut().drain().map(|(_, plan)| plan) {
            // SAFETY: the plan's descriptions are destroyed once.
            unsafe {
                let _ = result::destroy_matmul_desc(plan.description);
                for layout in plan.layouts {
                    let _ = result::destroy_matrix_layout(layout);
                }
            }
        }
        // SAFETY: the handle is used no more.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl std::fmt::Debug for Blas {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("Blas").field("plans", &self.plans.borrow().len()).finish_non_exhaustive()
    }
}
