"""Control images at 512 x 512: frames a second here and of other renderers, on the same bodies and cores.

    python -m tests.bench.bench_render [frames]

Others run when they are installed and can draw here: pyrender and moderngl (`pip install pyrender
moderngl`) need EGL, a system library; trimesh with embreex (`pip install trimesh embreex`) needs none.
"""

import os
import sys
import time
from collections.abc import Callable

import numpy as np

from udfs.body import Body
from udfs.camera import boxes, camera_params, crop, project
from udfs.control import pncc_colors, render_control

SIZE = 512

Draw = Callable[[int], np.ndarray]


class Scene:
    """Posed bodies in camera space, their colours and cameras."""

    def __init__(self, count: int) -> None:
        body = Body.load()
        rng = np.random.default_rng(0)
        pose = {
            "betas": rng.uniform(-1, 1, (count, 10)),
            "expression": np.zeros((count, 10)),
            "global_orient": np.zeros((count, 3)),
            "body_pose": rng.normal(0, 0.25, (count, 63)),
        }
        pelvis = body.pelvis(pose["betas"], pose["expression"])
        yaw = rng.uniform(-np.pi, np.pi, count)
        params = camera_params(pose, pelvis, yaw, np.zeros(count), np.full(count, 3.0))
        self.faces, self.colors = body.faces, pncc_colors(body)
        self.vertices = body(params).vertices
        focal, princpt = np.full((count, 2), 445.0), np.full((count, 2), SIZE / 2)
        box = boxes(project(self.vertices, focal, princpt))
        size = np.array([SIZE, SIZE])
        self.focal, self.princpt = crop(box, focal, princpt, np.full(count, 0.1), size)


def embree(scene: Scene) -> Draw:
    import embreex  # noqa: F401  without it trimesh falls back to a far slower caster
    import trimesh

    row, column = np.mgrid[:SIZE, :SIZE] + 0.5

    def draw(i: int) -> np.ndarray:
        x = (column - scene.princpt[i, 0]) / scene.focal[i, 0]
        y = (row - scene.princpt[i, 1]) / scene.focal[i, 1]
        rays = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
        mesh = trimesh.Trimesh(scene.vertices[i], scene.faces, process=False)
        points, ray, face = mesh.ray.intersects_location(np.zeros_like(rays), rays, multiple_hits=False)
        corners = trimesh.triangles.points_to_barycentric(mesh.triangles[face], points)
        image = np.zeros((SIZE * SIZE, 3), np.uint8)
        image[ray] = np.einsum("nk,nkc->nc", corners, scene.colors[scene.faces[face]]) * 255 + 0.5
        return image.reshape(SIZE, SIZE, 3)

    return draw


def pyrender(scene: Scene) -> Draw:
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    if not hasattr(np, "infty"):
        np.infty = np.inf  # noqa: NPY201  pyrender 0.1.45 was written for NumPy 1
    import pyrender as library
    import trimesh

    renderer = library.OffscreenRenderer(SIZE, SIZE)
    flags = library.RenderFlags.FLAT | library.RenderFlags.SKIP_CULL_FACES
    to_opengl = np.diag([1.0, -1.0, -1.0, 1.0])

    def draw(i: int) -> np.ndarray:
        mesh = trimesh.Trimesh(
            scene.vertices[i], scene.faces, vertex_colors=(scene.colors * 255).astype(np.uint8), process=False
        )
        world = library.Scene(bg_color=(0, 0, 0, 0))
        world.add(library.Mesh.from_trimesh(mesh, smooth=True))
        camera = library.IntrinsicsCamera(*scene.focal[i], *scene.princpt[i])
        world.add(camera, pose=to_opengl)
        return renderer.render(world, flags=flags)[0]

    return draw


def moderngl(scene: Scene) -> Draw:
    import moderngl as library

    context = library.create_standalone_context(backend="egl")
    program = context.program(
        vertex_shader="""#version 330
            uniform vec4 camera; uniform float size; in vec3 place; in vec3 color; out vec3 shade;
            void main() {
                shade = color;
                vec2 pixel = camera.xy * place.xy + camera.zw * place.z;
                gl_Position = vec4(2 * pixel / size - place.z, place.z - 0.1, place.z);
            }""",
        fragment_shader="""#version 330
            in vec3 shade; out vec4 pixel; void main() { pixel = vec4(shade, 1); }""",
    )
    places = context.buffer(reserve=scene.vertices[0].nbytes, dynamic=True)
    array = context.vertex_array(
        program,
        [(places, "3f", "place"), (context.buffer(scene.colors.tobytes()), "3f", "color")],
        context.buffer(scene.faces.tobytes()),
    )
    frame = context.simple_framebuffer((SIZE, SIZE), components=4)
    frame.use()
    context.enable(library.DEPTH_TEST)
    program["size"] = SIZE

    def draw(i: int) -> np.ndarray:
        places.write(scene.vertices[i].tobytes())
        program["camera"] = (*scene.focal[i], *scene.princpt[i])
        frame.clear()
        array.render()
        # Rows come bottom first, which is this projection's top: no flip is needed.
        return np.frombuffer(frame.read(components=3), np.uint8).reshape(SIZE, SIZE, 3)

    return draw


def main(count: int) -> None:
    scene = Scene(count)
    args = (scene.vertices, scene.faces, scene.colors, scene.focal, scene.princpt, SIZE, SIZE)
    ours = render_control(*args)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        render_control(*args)
        seconds.append(time.perf_counter() - start)
    rate = count / min(seconds)
    cores = os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))
    print(f"{count} frames of {SIZE} x {SIZE}, {len(scene.faces)} triangles, {cores} cores")
    print(f"{'this project':>14}: {rate:7.1f} frames/s")
    for other in (moderngl, pyrender, embree):
        try:
            draw = other(scene)
            frames = min(count, 24)
            first = draw(0)
            start = time.perf_counter()
            for i in range(frames):
                draw(i)
            theirs = frames / (time.perf_counter() - start)
        except Exception as error:  # a benchmark of what happens to work on this machine
            print(f"{other.__name__:>14}: did not run: {type(error).__name__}: {str(error)[:90]}")
            continue
        covered = np.mean(first.any(axis=-1) == ours[0].any(axis=-1))
        difference = np.abs(first.astype(int) - ours[0])[first.any(axis=-1) & ours[0].any(axis=-1)].mean()
        print(
            f"{other.__name__:>14}: {theirs:7.1f} frames/s, {rate / theirs:5.1f} times as slow; "
            f"agrees on {covered:.2%} of pixels, colours to {difference:.2f}/255"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 64)
