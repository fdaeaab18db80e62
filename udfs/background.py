"""The pixels behind the person: ground, wall or sky, and flat things standing between, in perspective."""

import numba
import numpy as np

from udfs.lighting import lit_share
from udfs.noise import cell, clouds, step, value2


@numba.njit(cache=True, nogil=True)
def _texture(kind, u, v, size, seed, first, second, color):
    """Colour of a ground or a wall at (u, v) metres; `size` is the extent of a pixel there."""
    mix = 0.0
    if kind == 0:  # grass
        mix = (
            0.6 * clouds(u * 1.1, v * 1.1, seed, 4, size * 1.1)
            + 0.5 * clouds(u * 28, v * 9, seed + 9, 2, size * 28)
            - 0.1
        )
    elif kind == 1:  # asphalt
        mix = clouds(u * 2, v * 2, seed, 3, size * 2) * 0.6 + 0.5 * clouds(
            u * 60, v * 60, seed + 3, 1, size * 60
        )
    elif kind == 2:  # sand, snow, earth
        mix = clouds(u * 0.9, v * 1.8, seed, 5, size * 1.8)
    elif kind == 3 or kind == 5:  # tiles, cobbles
        scale = 0.45 if kind == 3 else 0.17
        row = v / scale // 1
        shift = 0.5 * (row % 2) if kind == 5 else 0.0
        column = (u / scale + shift) // 1
        gu, gv = abs((u / scale + shift) % 1 - 0.5), abs((v / scale) % 1 - 0.5)
        joint = step(max(gu, gv) - (0.475 if kind == 3 else 0.44), size / scale)
        fade = min(max(1.3 - size / scale, 0.0), 1.0)
        mix = (0.35 + 0.3 * (cell(int(column), int(row), 0, seed) - 0.5)) * fade + 0.4 * (1 - fade)
        mix += joint * 0.7 * fade
    elif kind == 4:  # planks
        scale = 0.13
        plank = u / scale // 1
        shift = cell(int(plank), 1, 0, seed) * 3
        along = (v + shift) / 1.6 // 1
        fade = min(max(1.5 - size / scale, 0.0), 1.0)
        mix = 0.4 + 0.55 * (cell(int(plank), int(along), 0, seed) - 0.5) * fade
        mix += 0.3 * (clouds(u * 40, v * 3, seed, 2, size * 40) - 0.5)
        mix += 0.8 * fade * step(abs((u / scale) % 1 - 0.5) - 0.47, size / scale)
    elif kind == 6:  # sports court
        mix = 0.15 * clouds(u * 3, v * 3, seed, 3, size * 3)
    elif kind == 7:  # plaster, carpet, paper
        mix = 0.25 * clouds(u * 0.8, v * 0.8, seed, 3, size) + 0.12 * clouds(
            u * 30, v * 30, seed + 5, 2, size * 30
        )
    elif kind == 8:  # water
        mix = clouds(u * 0.5, v * 2.2, seed, 4, size * 2.2)
    elif kind == 9:  # bricks
        row = v / 0.075 // 1
        column = (u / 0.23 + 0.5 * (row % 2)) // 1
        gu, gv = abs((u / 0.23 + 0.5 * (row % 2)) % 1 - 0.5), abs((v / 0.075) % 1 - 0.5)
        fade = min(max(1.3 - size / 0.075, 0.0), 1.0)
        mix = 0.35 + 0.5 * (cell(int(column), int(row), 0, seed) - 0.5) * fade
        mortar = max(step(gu - 0.475, size / 0.23), step(gv - 0.43, size / 0.075))
        mix -= 0.6 * mortar * fade
    elif kind == 10:  # wallpaper
        mix = step(0.25 - abs((u / 0.22) % 1 - 0.5), size / 0.22) * 0.6 + 0.1 * clouds(
            u * 9, v * 9, seed, 2, size * 9
        )
    elif kind == 11:  # curtain
        wave = np.sin(u * 24 + 2.5 * value2(u * 2.2, v * 0.3, seed))
        mix = 0.45 - 0.5 * wave
    elif kind == 12:  # panels
        gu, gv = abs((u / 0.9) % 1 - 0.5), abs((v / 1.25) % 1 - 0.5)
        mix = 0.2 * clouds(u * 1.5, v * 1.5, seed, 3, size) + 0.9 * max(
            step(gu - 0.488, size / 0.9), step(gv - 0.491, size / 1.25)
        )
        mix += 0.2 * (cell(int(u / 0.9 // 1), int(v / 1.25 // 1), 0, seed) - 0.5)
    for c in range(3):
        color[c] = max(first[c] + (second[c] - first[c]) * mix, 0.002)
    if kind == 6 and size < 0.3:
        line = max(
            step(0.03 - abs((u / 3.3 + 0.31) % 1 - 0.5) * 3.3, size),
            step(0.03 - abs((v / 4.1) % 1 - 0.5) * 4.1, size),
        )
        for c in range(3):
            color[c] += (0.85 - color[c]) * line
    elif kind == 13:  # shelves
        _shelves(u, v, size, seed, color)


@numba.njit(cache=True, nogil=True)
def _shelves(u, v, size, seed, color):
    """Rows of books or goods, in many colours, on boards of the colour given."""
    row = v / 0.36 // 1
    level = (v / 0.36) % 1
    run = u / (0.05 + 0.03 * cell(int(row), 0, 1, seed))
    book = run // 1
    tall = 0.6 + 0.28 * cell(int(book), int(row), 2, seed)
    inside = step(level - 0.08, size / 0.36) * step(tall - level, size / 0.36)
    gap = step(0.46 - abs(run % 1 - 0.5), size / 0.06)
    for c in range(3):
        hue = 0.03 + 0.5 * cell(int(book), int(row), 3 + c, seed) ** 2
        color[c] = color[c] * (1.0 if level < 0.08 else 0.35) * (1 - inside) + inside * hue * (
            0.3 + 0.7 * gap
        )


@numba.njit(cache=True, nogil=True)
def _thing(p, u, v, size, color):
    """Coverage and colour of a thing at u in [-0.5, 0.5] of its width, v in [0, 1] of its height."""
    wide, high, kind = p.width, p.height, p.kind
    su, sv = size / wide, size / high
    shade, alpha = 1.0, step(0.5 - abs(u), su) * step(v, sv) * step(1 - v, sv)
    second = 0.0
    if kind == 0 or kind == 4 or kind == 6:  # tree, bush, rock
        middle, radius = (0.66, 0.31) if kind == 0 else (0.2, 0.62)
        dx, dy = u * (wide / high if kind == 0 else 0.95), v - middle
        far = np.sqrt(dx * dx * (1.1 if kind == 0 else 1.6) + dy * dy)
        ragged = 0.3 * (clouds(u * 7, v * 7, p.seed, 3, su * 7) - 0.5) * (0.5 if kind == 6 else 1.0)
        alpha = step(radius + ragged - far, sv) * step(v, sv)
        shade = 0.55 + 0.75 * clouds(u * 12, v * 12, p.seed + 4, 2, su * 12) + 0.5 * dy
        if kind == 0 and alpha < 0.5 and v < 0.6:
            trunk = step(0.035 + 0.02 * (1 - v) - abs(u), su) * step(v, sv)
            if trunk > alpha:
                alpha = trunk
                color[0], color[1], color[2] = 0.10, 0.07, 0.045
                return alpha
    elif kind == 1:  # conifer
        saw = 0.75 + 0.25 * ((v * 7) % 1)
        alpha = step(0.5 * (1 - v) * (1.6 - saw) - abs(u) + 0.05 * (value2(u * 30, v * 30, p.seed) - 0.5), su)
        alpha *= step(v - 0.06, sv)
        shade = 0.5 + 0.7 * clouds(u * 14, v * 20, p.seed, 2, su * 14)
    elif kind == 2:  # building
        x, y = u * wide, v * high
        gx, gy = abs((x / 2.1) % 1 - 0.5), abs((y / 3.1) % 1 - 0.55)
        pane = step(0.28 - gx, size / 2.1) * step(0.27 - gy, size / 3.1)
        lamp = cell(int(x / 2.1 // 1), int(y / 3.1 // 1), 0, p.seed)
        shade = (0.9 + 0.2 * clouds(x * 0.4, y * 0.4, p.seed, 3, size)) * (
            1 - pane * (0.72 if lamp < 0.75 else 0.2)
        )
        if y < 3.0 and cell(0, 0, 7, p.seed) < 0.6:
            second = 0.55 * step(y - 2.4, size)
    elif kind == 3:  # lamp post
        bulb = step(0.02 - (u * u * wide * wide + (v - 0.97) ** 2 * high * high), size * 0.3)
        alpha = max(step(0.045 / wide - abs(u), su) * step(v, sv) * step(0.98 - v, sv), bulb)
        shade = 1.0 + 2.0 * bulb
    elif kind == 5:  # box, counter, table
        shade = 1.25 if v > 0.92 else 0.9 - 0.15 * step(abs(abs((u * 2) % 1 - 0.5) - 0.49) * -1 + 0.012, su)
        if cell(1, 1, 1, p.seed) < 0.35 and v < 0.85:  # a table: legs and air
            alpha *= step(abs(u) - 0.44, su)
    elif kind == 7:  # car
        lower = step(0.62 - v, sv) * step(v - 0.16, sv) * step(0.5 - abs(u) - 0.06 * max(v - 0.35, 0), su)
        cabin = step(0.33 - abs(u) - 0.12 * (v - 0.6), su) * step(1 - v, sv) * step(v - 0.55, sv)
        glass = step(0.28 - abs(u) - 0.12 * (v - 0.6), su) * step(0.92 - v, sv) * step(v - 0.62, sv)
        wx, wy = (abs(u) - 0.3) * wide, (v - 0.2) * high
        wheel = step(0.31 - np.sqrt(wx * wx + wy * wy), size)
        alpha = max(max(lower, cabin), wheel)
        shade = (1.0 - 0.85 * glass * step(abs(u) - 0.012, su)) * (1 - 0.9 * wheel)
    elif kind == 8:  # fence
        x = u * wide
        post = step(0.04 - abs((x / 1.5) % 1 - 0.5) * 1.5, size)
        rail = max(step(0.045 - abs(v - 0.92) * high, size), step(0.03 - abs(v - 0.45) * high, size))
        bars = 0.55 * step(0.012 - abs((x / 0.12) % 1 - 0.5) * 0.12, size) if size < 0.08 else 0.12
        alpha *= max(max(post, rail), bars)
    elif kind == 9:  # stands
        row = v * 9 // 1
        seat = cell(int(u * wide / 0.5 // 1), int(row), 0, p.seed)
        shade = 0.6 + 0.5 * ((v * 9) % 1)
        second = 0.75 if seat < 0.6 and (v * 9) % 1 < 0.55 else 0.0
    elif kind == 10:  # sofa, bed
        arm = step(abs(u) - 0.42, su) * step(0.68 - v, sv)
        back = step(0.46 - abs(u), su) * step(0.97 - v, sv)
        alpha = max(arm, back) * step(v - 0.06, sv)
        shade = 1.1 if v < 0.5 and v > 0.36 else 0.85 + 0.1 * step(0.01 - abs(abs(u) - 0.15), su)
        shade *= 1.0 + 0.12 * arm
        second = 0.8 * step(0.09 - max(abs(u + 0.22), abs(v - 0.62) * 0.6), su) * cell(2, 2, 2, p.seed)
    elif kind == 11:  # window
        border = max(
            step(abs(u) * wide - wide * 0.5 + 0.06, size), step(abs(v - 0.5) * high - high * 0.5 + 0.06, size)
        )
        cross = max(step(0.02 - abs(u) * wide, size), step(0.02 - abs(v - 0.5) * high, size))
        view = 0.55 + 0.55 * v + 0.3 * (clouds(u * 3, v * 3, p.seed, 3, su * 3) - 0.5)
        frame = max(border, cross)
        color[0], color[1], color[2] = (
            view * 0.9 * (1 - frame) + 0.8 * frame,
            view * (1 - frame) + 0.79 * frame,
            view * 1.05 * (1 - frame) + 0.76 * frame,
        )
        return alpha
    elif kind == 12:  # door
        border = max(step(abs(u) - 0.45, su), step(v - 0.96, sv))
        panel = step(0.33 - abs(u), su) * max(step(0.17 - abs(v - 0.7), sv), step(0.17 - abs(v - 0.25), sv))
        knob = step(0.035 - np.sqrt(((u - 0.37) * wide) ** 2 + ((v - 0.47) * high) ** 2), size)
        shade = 1.25 * border + (1 - border) * (1 - 0.14 * panel) - 0.6 * knob
    elif kind == 13:  # picture
        border = max(
            step(abs(u) * wide - wide * 0.5 + 0.035, size),
            step(abs(v - 0.5) * high - high * 0.5 + 0.035, size),
        )
        if border < 0.5:
            paint = clouds(u * 4, v * 4, p.seed, 3, su * 4)
            second, shade = min(max(paint * 3 - 1, 0.0), 1.0), 0.6 + 0.9 * value2(u * 6, v * 5, p.seed + 2)
        else:
            shade = 0.25
    elif kind == 14:  # board, sign
        border = max(
            step(abs(u) * wide - wide * 0.5 + 0.04, size), step(abs(v - 0.5) * high - high * 0.5 + 0.04, size)
        )
        script = step(value2(u * wide * 26, v * high * 9, p.seed) - 0.62, 0.2) * step(
            0.25 - abs((v * 6) % 1 - 0.5), sv * 6
        )
        shade = 1.0 + 1.2 * border * (0.3 if color[0] > 0.4 else 1.0)
        second = 0.45 * script * (1 - border)
    elif kind == 15:  # rack of things
        for c in range(3):
            color[c] = p.color[c]
        _shelves(u * wide, v * high, size, p.seed, color)
        return alpha
    for c in range(3):
        color[c] = max((p.color[c] + (p.second[c] - p.color[c]) * second) * shade, 0.001)
    return alpha


@numba.njit(cache=True, nogil=True)
def paint_background(
    setting, props, up, ahead, eye, light, shadow, rotation, translation, light_focal, contact, corner,
    camera, out,
):  # fmt: skip
    """Linear colours (H, W, 3) of everything but the person.

    up, ahead: unit vectors in camera space; eye: the camera's height over the ground, metres.
    contact (n, n): darkness where the body is close to the ground, 2.5 cm cells from `corner` (2,) on.
    camera: focal x, y, princpt x, y.
    """
    height, width = out.shape[:2]
    color, other = np.empty(3), np.empty(3)
    direct = 0.15 + 0.6 * light.contrast
    for i in range(height):
        for j in range(width):
            dx, dy = (j + 0.5 - camera[2]) / camera[0], (i + 0.5 - camera[3]) / camera[1]
            rise = dy * up[1] + up[2]
            forth = dy * ahead[1] + ahead[2]
            per_metre = 1.0 / camera[0]
            ground = eye / -rise if rise < -1e-5 else np.inf
            ground = ground if ground > 0.0 else np.inf
            reach, wall = np.inf, np.inf
            shade = 1.0
            if setting.wall >= 0:
                slope = dx * np.sin(setting.wall_yaw) + forth * np.cos(setting.wall_yaw)
                wall = setting.wall_distance / slope if slope > 1e-3 else np.inf
            if wall < ground:
                h = eye + rise * wall
                s = dx * wall * np.cos(setting.wall_yaw) - forth * wall * np.sin(setting.wall_yaw)
                reach = wall
                if h > setting.ceiling:
                    for c in range(3):
                        color[c] = 0.62 + 0.08 * value2(s, h, setting.seed)
                else:
                    _texture(
                        setting.wall, s / setting.wall_scale, h / setting.wall_scale,
                        per_metre * wall / setting.wall_scale, setting.seed, setting.wall_colors[0],
                        setting.wall_colors[1], color,
                    )  # fmt: skip
                    if h < setting.skirting:
                        for c in range(3):
                            color[c] = 0.6 * color[c] + 0.25
                    shade = 1 + setting.gradient[0] * s * 0.4 + setting.gradient[1] * (h - 1.2) * 0.35
                    shade *= 0.72 + 0.28 * min(h / 0.35, 1.0) if setting.ceiling < 40 else 1.0
                    part = lit_share(
                        shadow, rotation, translation, light_focal, dx * wall, dy * wall, wall,
                        3.0 + 4 * light.softness, 0.02,
                    )  # fmt: skip
                    shade *= 1 - direct * (1 - part)
            elif ground < 600.0:
                x, z = dx * ground, forth * ground
                reach = ground
                footprint = per_metre * ground * (1 + 0.6 * min(1.0 / (abs(rise) + 0.02), 12.0))
                border = setting.border + 0.35 * (value2(x * 0.9, 0.0, setting.seed) - 0.5)
                far = setting.beyond >= 0 and z > border
                first = setting.beyond_colors if far else setting.ground_colors
                _texture(
                    setting.beyond if far else setting.ground, x / setting.scale, z / setting.scale,
                    footprint / setting.scale,
                    setting.seed + 1, first[0], first[1], color,
                )  # fmt: skip
                part = lit_share(
                    shadow, rotation, translation, light_focal, dx * ground, dy * ground, ground,
                    1.0 + 4 * light.softness, 0.0,
                )  # fmt: skip
                shade = 1 - direct * (1 - part)
                if setting.wall >= 0 and setting.ceiling < 40:
                    shade *= 0.75 + 0.25 * min((setting.wall_distance - z) / 0.5, 1.0)
                a, b = int((x - corner[0]) / 0.025), int((z - corner[1]) / 0.025)
                if a >= 0 and b >= 0 and a < contact.shape[0] and b < contact.shape[1]:
                    shade *= 1 - contact[a, b]
            else:
                tall = min(max(rise * 1.6, 0.0), 1.0)
                for c in range(3):
                    color[c] = setting.sky[1, c] + (setting.sky[0, c] - setting.sky[1, c]) * np.sqrt(tall)
                if setting.clouds > 0 and rise > 0.0:
                    t = 1.0 / (rise + 0.12)
                    puff = clouds(dx * t * 0.9, forth * t * 0.9, setting.seed + 21, 5, per_metre * t)
                    puff = min(max((puff - 0.72 + 0.3 * setting.clouds) * 4, 0.0), 0.9)
                    for c in range(3):
                        color[c] += (0.88 - color[c]) * puff
                for layer in range(2):
                    top = setting.hills[layer]
                    if top <= 0:
                        continue
                    far = 260.0 - 150.0 * layer
                    t = far / max(forth, 1e-3)
                    ridge = (
                        top
                        * (
                            0.35
                            + 0.9 * clouds(dx * t * 0.013, 0.5 + layer, setting.seed + 31 + layer, 5, 0.01)
                        )
                        * 0.9
                    )
                    alpha = step(ridge - rise * t - eye, per_metre * far)
                    rough = 0.8 + 0.4 * clouds(dx * t * 0.1, rise * t * 0.2, setting.seed + 41, 3, 0.2)
                    blend = np.exp(-far / (setting.haze * 1.6))
                    for c in range(3):
                        hill = setting.hill_colors[layer, c] * rough * blend + setting.sky[1, c] * (1 - blend)
                        color[c] += (hill - color[c]) * alpha
            for k in range(len(props)):
                p = props[k]
                slope = dx * np.sin(p.yaw) + forth * np.cos(p.yaw)
                if slope < 1e-3:
                    continue
                t = p.distance / slope
                if t > reach + 0.3:
                    continue
                s = dx * t * np.cos(p.yaw) - forth * t * np.sin(p.yaw)
                u, v = (s - p.side) / p.width, (eye + rise * t - p.base) / p.height
                if abs(u) > 0.56 or v < -0.04 or v > 1.06:
                    continue
                for c in range(3):
                    other[c] = p.color[c]
                alpha = _thing(p, u, v, per_metre * t, other)
                if alpha <= 0.0:
                    continue
                haze = np.exp(-max(t - 6.0, 0.0) / setting.haze) if setting.wall < 0 else 1.0
                under = 0.75 + 0.25 * min(v * 4, 1.0)
                for c in range(3):
                    other[c] = other[c] * under * haze + setting.sky[1, c] * (1 - haze)
                    color[c] = color[c] * shade * (1 - alpha) + other[c] * alpha
                shade = 1.0 - (1.0 - shade) * (1 - alpha) if alpha > 0.99 else 1.0
            if reach < np.inf and setting.wall < 0:
                haze = np.exp(-max(reach - 8.0, 0.0) / setting.haze)
                for c in range(3):
                    color[c] = color[c] * haze + setting.sky[1, c] * (1 - haze) * 0.9
            for c in range(3):
                out[i, j, c] = color[c] * shade * setting.light[c]


@numba.njit(cache=True, nogil=True)
def contact_map(right, depth, above, low_right, low_depth, size):
    """(size, size) darkness of the ground under points: where they are, and how high above it, metres."""
    spots = np.zeros((size, size), np.float32)
    for v in range(len(right)):
        if above[v] < 0.12:
            a, b = int((right[v] - low_right) / 0.025), int((depth[v] - low_depth) / 0.025)
            if a >= 0 and b >= 0 and a < size and b < size:
                spots[a, b] = max(spots[a, b], 1.0 - above[v] / 0.12)
    for _ in range(2):
        spots = blur(spots.reshape(size, size, 1), 2).reshape(size, size)
    return spots * np.float32(0.8)


@numba.njit(cache=True, nogil=True)
def blur(image, radius):
    """Box blur of (H, W, C) float32, (2 radius + 1) pixels a side; the border is repeated."""
    height, width, channels = image.shape
    if radius < 1:
        return image.copy()
    half, out = np.empty_like(image), np.empty_like(image)
    span = np.float32(1.0 / (2 * radius + 1))
    for i in range(height):
        for c in range(channels):
            total = np.float32(0)
            for j in range(-radius, radius + 1):
                total += image[i, min(max(j, 0), width - 1), c]
            for j in range(width):
                half[i, j, c] = total * span
                total += image[i, min(j + radius + 1, width - 1), c] - image[i, max(j - radius, 0), c]
    for j in range(width):
        for c in range(channels):
            total = np.float32(0)
            for i in range(-radius, radius + 1):
                total += half[min(max(i, 0), height - 1), j, c]
            for i in range(height):
                out[i, j, c] = total * span
                total += half[min(i + radius + 1, height - 1), j, c] - half[max(i - radius, 0), j, c]
    return out
