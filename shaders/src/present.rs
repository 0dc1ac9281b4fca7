//! Pictures drawn from a GPU's own memory: from the buffer of a tensor to a texture, nothing read
//! back.

use burn::backend::Wgpu;
#[cfg(feature = "fusion")]
use burn::backend::wgpu::CubeBackend;
use burn::backend::wgpu::{CubeTensor, WgpuRuntime};
use burn::tensor::{DType, Tensor};
use wgpu::util::DeviceExt;

/// What the textures are made of; egui and most compositors blend in this space.
const FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba8Unorm;

/// Draws the tensors that Burn has on one wgpu device.
#[derive(Debug)]
pub struct Presenter {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipeline: wgpu::RenderPipeline,
}

impl Presenter {
    /// For the device that Burn computes on; see `raw/present.wgsl`.
    pub fn new(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let module = device.create_shader_module(wgpu::include_wgsl!("raw/present.wgsl"));
        let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some("present"),
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: Some("cover"),
                compilation_options: Default::default(),
                buffers: &[],
            },
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: Some("shade"),
                compilation_options: Default::default(),
                targets: &[Some(FORMAT.into())],
            }),
            primitive: Default::default(),
            depth_stencil: None,
            multisample: Default::default(),
            multiview_mask: None,
            cache: None,
        });
        Self { device, queue, pipeline }
    }

    /// A texture of one picture of a batch.
    ///
    /// * `images`: `[B, 3, H, W]` in −1…1, float32
    /// * `grey`: what 0 becomes before truncation, 127.5 or 128
    ///
    /// Nothing for tensors on another kind of device or of another type.
    pub fn draw(&self, images: &Tensor<4>, index: usize, grey: f32) -> Option<wgpu::Texture> {
        let [batch, channels, height, width] = images.dims();
        if images.dtype() != DType::F32 || channels != 3 || index >= batch {
            return None;
        }
        let tensor = cube(images)?;
        let strides: Vec<u32> = tensor.meta.strides().iter().map(|s| *s as u32).collect();
        let resource = tensor.client.get_resource(tensor.handle.clone()).ok()?;
        // What fills the buffer must be with the queue before what reads it.
        tensor.client.flush().ok()?;
        let mut picture = Vec::with_capacity(32);
        for number in strides.iter().chain([&(index as u32)]) {
            picture.extend(number.to_le_bytes());
        }
        picture.extend(grey.to_le_bytes());
        picture.resize(32, 0);
        let uniform = self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("picture"),
            contents: &picture,
            usage: wgpu::BufferUsages::UNIFORM,
        });
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("picture"),
            layout: &self.pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry {
                    binding: 0,
                    resource: resource.resource().as_wgpu_bind_resource(),
                },
                wgpu::BindGroupEntry { binding: 1, resource: uniform.as_entire_binding() },
            ],
        });
        let texture = self.device.create_texture(&wgpu::TextureDescriptor {
            label: Some("picture"),
            size: wgpu::Extent3d {
                width: width as u32,
                height: height as u32,
                depth_or_array_layers: 1,
            },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: FORMAT,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT
                | wgpu::TextureUsages::TEXTURE_BINDING
                | wgpu::TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        let view = texture.create_view(&Default::default());
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            label: Some("present"),
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: &view,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations::default(),
            })],
            depth_stencil_attachment: None,
            timestamp_writes: None,
            occlusion_query_set: None,
            multiview_mask: None,
        });
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.draw(0..3, 0..1);
        drop(pass);
        self.queue.submit([encoder.finish()]);
        Some(texture)
    }
}

/// The buffer and strides behind a tensor.
fn cube(images: &Tensor<4>) -> Option<CubeTensor<WgpuRuntime>> {
    let tensor = images.clone().try_into_primitive::<Wgpu>().ok()?;
    #[cfg(feature = "fusion")]
    let tensor = tensor.client.clone().resolve_tensor_float::<CubeBackend<WgpuRuntime>>(tensor);
    Some(tensor)
}
