"""The pipeline file that `posedreamer init` writes."""

PIPELINE = """\
# A posedreamer pipeline. `posedreamer run` computes what is missing, `posedreamer plan` says what that is.
# Relative paths are relative to the folder of this file.

lake: lake                    # a folder, or a URL such as s3://bucket/lake

poses:                        # files or folders; every source has a name
  - name: demo
    path: bundled             # the poses that come with posedreamer
    # every: 5                # keep each 5th frame, or: frames_per_sequence: 15
  # - name: amass
  #   path: /data/AMASS       # SMPL-H and SMPL-X layouts, npz
  #   frames_per_sequence: 15
  #   licence: non-commercial research

captions:
  - kind: grammar             # made for each pose: scene, clothes and their colours, light, camera
    demographic: 0.6          # how often a demographic term is said
  # - name: coco
  #   path: captions_val2017.json
  #   licence: CC BY 4.0

plan:
  pairing: grammar            # or random, all, key: pairs the captions of files
  captions_per_pose: 1
  image_size: [128, 128]      # height, width: what the generator paints well
  betas: resample             # body shapes uniformly in [-1, 1], or keep the pose's own
  camera:                     # degrees and metres
    yaw: [-180, 180]
    elevation: [-5, 15]
    distance: [2.8, 3.2]
    margin: 0.1               # crop: the smallest square around the body plus 10 %
  seed: 0

# curriculum:                 # rounds: each one's poses are chosen by what those before it measured
#   rounds:
#     - {budget: 500}         # poses; the first round is random
#     - {budget: 500, mix: {hard: 0.5, novel: 0.25, random: 0.25}}
#   spacing: 0.05             # metres between the joints of two poses of a round, root mean square
#   min_plausibility: 0.3     # leaves out poses that no body could take

body:
  model: standin              # or the path of a licensed SMPLX_NEUTRAL.npz

generator:
  name: diffusers             # or shaded: a renderer, no model
  model: nano                 # or a folder or hub id of a pipeline with a control input, such as FLUX's
  steps: 4
  adapters:                   # LoRAs, all of them active
    # Trained on preferences; `run --no-dpo` leaves it out, a higher weight moves images further.
    - {name: dpo, path: nano-dpo, weight: 4}

image:
  format: jpeg
  quality: 92

metrics:
  keypoints:
    weights: default
  # colors: true              # whether clothes and background have the colours that the caption names
  # image_quality: true       # sharpness, exposure, clipping, colourfulness, traces of JPEG
  # silhouette: true          # people in the image against the labels' body; or: {model: owner/segformer}
  # head_pose: true           # roll, pitch and yaw of the head against the labels'
  # caption_match: true       # scene and light of the caption; or: {model: owner/clip}

policy: strict                # or lenient, or the path of a policy file
release: 0.1.0                # published at the end of the run, once

cluster:
  # scheduler: tcp://host:8786  # a Dask scheduler; without one, workers start on this machine
  partition_rows: 64
"""
