// The picture that was picked, and the part of it that the network sees.

const $ = (id) => document.getElementById(id);

/** An element with properties and children; text stays text. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

let shownUrl = "";

function showPicture(file, preprocessing) {
  URL.revokeObjectURL(shownUrl);
  shownUrl = URL.createObjectURL(file);
  $("file-name").textContent = `${file.name || "pasted image"}, ${bytesText(file.size)}`;
  $("no-preview").hidden = true;
  $("frame").hidden = false;
  const image = $("image");
  image.alt = `The image that was sent: ${file.name || "pasted"}`;
  image.onload = () => drawCrop(preprocessing);
  image.onerror = () => {
    $("frame").hidden = true;
    $("no-preview").hidden = false;
    $("crop-note").textContent = "";
  };
  image.src = shownUrl;
  $("file").removeAttribute("aria-describedby"); // the hint goes with the drop zone
  $("drop").hidden = true;
  $("shown").hidden = false;
  $("main").classList.remove("empty");
}

/** Frame what is left after scaling and cropping, in shares of the picture. */
function drawCrop(preprocessing) {
  const { naturalWidth: width, naturalHeight: height } = $("image");
  if (!width || !height) return;
  $("frame").style.setProperty("--ratio", width / height);
  $("frame").classList.toggle("small", Math.max(width, height) < 160);
  const seen = seenPart(width, height, preprocessing);
  const whole = !seen || (seen.width > 0.995 && seen.height > 0.995);
  $("crop").hidden = whole;
  $("crop-note").textContent = whole
    ? `${width} × ${height}`
    : `${width} × ${height}; the network sees what is in the frame`;
  if (whole) return;
  const share = (value) => `${(100 * value).toFixed(3)}%`;
  $("crop").style.width = share(seen.width);
  $("crop").style.height = share(seen.height);
  $("crop").style.left = share((1 - seen.width) / 2);
  $("crop").style.top = share((1 - seen.height) / 2);
}

function seenPart(width, height, preprocessing) {
  if (!preprocessing) return null;
  const { height: toHeight, width: toWidth, crop_fraction: fraction, resize } = preprocessing;
  if (resize === "stretch") return { width: fraction, height: fraction };
  const scale = Math.max(toHeight / fraction / height, toWidth / fraction / width);
  return { width: toWidth / (width * scale), height: toHeight / (height * scale) };
}

function bytesText(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** The first file of a drop or a paste; a message if there is none. */
function fileOf(transfer) {
  const file = transfer?.files?.[0];
  if (file) return file;
  if (transfer?.types?.includes("text/uri-list")) {
    throw new Error("That is a link to an image, not the image. Save it first, then drop the file.");
  }
  throw new Error("There is no image in what you dropped or pasted.");
}
