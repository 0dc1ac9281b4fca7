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

    /// A texture of one picture of a batch of values in −1…1; `grey` is what 0 becomes before
    /// truncation, 127.5 or 128. `None` for tensors on another kind of device or of another type
    /// than float32, for another number of channels, and where the batch ends before `index`.
    ///
    /// # Shapes
    ///
    /// * `images`: `[B, 3, H, W]`
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

#[cfg(test)]
mod tests {
    use burn::backend::DispatchDevice;
    use burn::backend::wgpu::{WgpuSetup, init_device};
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn the_source_is_valid_and_modest() {
        let source = include_str!("raw/present.wgsl");
        let module = naga::front::wgsl::parse_str(source).expect("it parses");
        let mut validator = naga::valid::Validator::new(
            naga::valid::ValidationFlags::all(),
            naga::valid::Capabilities::empty(),
        );
        validator.validate(&module).expect("it is valid");
        let storage =
            |space: &naga::AddressSpace| matches!(space, naga::AddressSpace::Storage { .. });
        let buffers = module.global_variables.iter().filter(|(_, v)| storage(&v.space)).count();
        assert!(buffers <= 8, "{buffers} storage buffers; WebGPU promises 8");
    }

    /// A device for both, as a window has it.
    fn shared() -> (wgpu::Device, wgpu::Queue, Device) {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = pollster::block_on(instance.request_adapter(&Default::default()))
            .expect("a GPU, or Mesa's software one (mesa-vulkan-drivers)");
        let descriptor = wgpu::DeviceDescriptor {
            required_features: adapter.features() - wgpu::Features::MAPPABLE_PRIMARY_BUFFERS,
            required_limits: adapter.limits(),
            // SAFETY: as Burn does on a device of its own.
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            ..Default::default()
        };
        let (device, queue) =
            pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
        let backend = adapter.get_info().backend;
        let setup =
            WgpuSetup { instance, adapter, device: device.clone(), queue: queue.clone(), backend };
        let burn = init_device(setup, Default::default());
        (device, queue, Device::new(DispatchDevice::Wgpu(burn)))
    }

    /// What is in a texture, `[red, green, blue, alpha]` by row.
    fn read(device: &wgpu::Device, queue: &wgpu::Queue, texture: &wgpu::Texture) -> Vec<[u8; 4]> {
        let (width, height) = (texture.width(), texture.height());
        let pitch = (4 * width).next_multiple_of(wgpu::COPY_BYTES_PER_ROW_ALIGNMENT);
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: u64::from(pitch * height),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        encoder.copy_texture_to_buffer(
            texture.as_image_copy(),
            wgpu::TexelCopyBufferInfo {
                buffer: &buffer,
                layout: wgpu::TexelCopyBufferLayout {
                    offset: 0,
                    bytes_per_row: Some(pitch),
                    rows_per_image: None,
                },
            },
            texture.size(),
        );
        queue.submit([encoder.finish()]);
        buffer.slice(..).map_async(wgpu::MapMode::Read, |result| result.expect("it maps"));
        device.poll(wgpu::PollType::wait_indefinitely()).expect("it ends");
        let bytes = buffer.slice(..).get_mapped_range().expect("it is mapped");
        let rows = bytes.chunks_exact(pitch as usize);
        rows.flat_map(|row| row[..4 * width as usize].chunks_exact(4))
            .map(|p| [p[0], p[1], p[2], p[3]])
            .collect()
    }

    #[test]
    fn a_tensor_is_drawn_as_bytes_would_be() {
        let (device, queue, burn) = shared();
        let presenter = Presenter::new(device.clone(), queue.clone());
        let (batch, height, width) = (3, 5, 70);
        let value = |i: usize| ((i * 7919) % 2003) as f32 / 800.0 - 1.25;
        let values: Vec<f32> = (0..batch * 3 * height * width).map(value).collect();
        let data = TensorData::new(values.clone(), [batch, 3, height, width]);
        let images = Tensor::<4>::from_data(data, &burn) * 1.0;
        // The same values with the channels last in memory, as a convolution may leave them.
        let data = TensorData::new(values.clone(), [batch, 3, height, width]);
        let moved = Tensor::<4>::from_data(data, &burn).permute([0, 2, 3, 1]) * 1.0;
        let moved = moved.permute([0, 3, 1, 2]);
        for images in [images, moved] {
            for (index, grey) in [(0, 127.5), (2, 128.0)] {
                let texture = presenter.draw(&images, index, grey).expect("it is on this device");
                let drawn = read(&device, &queue, &texture);
                for at in 0..height * width {
                    let wanted = [0, 1, 2].map(|c| {
                        let value = values[(index * 3 + c) * height * width + at];
                        (127.5 * value + grey).clamp(0.0, 255.0) as u8
                    });
                    let [red, green, blue, alpha] = drawn[at];
                    assert_eq!(([red, green, blue], alpha), (wanted, 255), "pixel {at}");
                }
            }
        }
        assert!(presenter.draw(&Tensor::zeros([1, 3, 2, 2], &Device::flex()), 0, 127.5).is_none());
        assert!(presenter.draw(&Tensor::zeros([1, 4, 2, 2], &burn), 0, 127.5).is_none());
        assert!(presenter.draw(&Tensor::zeros([1, 3, 2, 2], &burn), 1, 127.5).is_none());
    }
}
