"""Images of the tests' own pods, made of files: archives that `ctr images import` takes. (rutter's is made by image/build.)"""
import hashlib
import io
import json
import os
import pathlib
import platform
import tarfile

#: What Go, and so image formats, call this machine's kind of processor.
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def image(path, name, files, entrypoint, user="65532"):
    """Writes to `path` an image called `name`: one layer with `files` (place in the image → file), run as `user`."""
    layer = layer_of(files)
    config = as_json({"architecture": ARCHITECTURE, "os": "linux", "config": {"Entrypoint": entrypoint, "User": user, "WorkingDir": "/"},
                      "rootfs": {"type": "layers", "diff_ids": [digest(layer)]}})
    manifest = as_json({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                        "config": described("application/vnd.oci.image.config.v1+json", config),
                        "layers": [described("application/vnd.oci.image.layer.v1.tar", layer)]})
    index = as_json({"schemaVersion": 2, "manifests": [{**described("application/vnd.oci.image.manifest.v1+json", manifest),
                                                        "annotations": {"io.containerd.image.name": name}}]})
    with tarfile.open(path, "w") as archive:
        add(archive, "oci-layout", as_json({"imageLayoutVersion": "1.0.0"}))
        add(archive, "index.json", index)
        for blob in (config, manifest, layer):
            add(archive, f"blobs/sha256/{digest(blob).removeprefix('sha256:')}", blob)
    return path


def layer_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        directories = {str(parent) for place in files for parent in pathlib.PurePosixPath(place).parents} | {"/tmp"}
        for directory in sorted(directories - {"/", "."}):
            entry = tarfile.TarInfo(directory.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "/tmp" else 0o755
            layer.addfile(entry)
        for place, source in sorted(files.items()):
            add(layer, place.lstrip("/"), pathlib.Path(source).read_bytes(), 0o755 if os.access(source, os.X_OK) else 0o644)
    return buffer.getvalue()


def add(archive, name, data, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def as_json(value):
    return json.dumps(value, sort_keys=True).encode()


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def described(kind, data):
    return {"mediaType": kind, "digest": digest(data), "size": len(data)}
